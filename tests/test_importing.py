import importlib
import sys

import pytest

from keras_bn.importing import attribute, why_not_found
from tests.commands import tool

BROKEN = "import math\nmath.no_such_name"
CAUSE = "AttributeError: module 'math' has no attribute 'no_such_name'"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return a function that writes a module into a package which can be imported."""
    folder = tmp_path / "some_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield lambda text: (folder / "module.py").write_text(text)
    for name in [name for name in sys.modules if name.split(".")[0] == "some_package"]:
        del sys.modules[name]


def test_attribute_is_what_the_module_has(package):
    package("answer = 42")
    assert attribute("some_package", "module", "answer") == 42


def test_attribute_error_of_an_import_is_the_cause_of_an_import_error(package):
    package(BROKEN)
    with pytest.raises(ImportError, match=r"^some_package\.answer: its import") as raised:
        attribute("some_package", "module", "answer")
    assert f"Received: {CAUSE}." in str(raised.value)
    assert isinstance(raised.value.__cause__, AttributeError)


@pytest.mark.parametrize("error", [TypeError, ImportError, RuntimeError, OSError])
def test_other_error_of_an_import_stays_as_it_is(package, error):
    package(f"raise {error.__name__}('why')")
    with pytest.raises(error, match=r"^why$"):
        attribute("some_package", "module", "answer")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        pytest.param("no_such", "the package 'no_such', which is not installed", id="package"),
        pytest.param("no_such.part", "the package 'no_such', which is not", id="part of none"),
        pytest.param("math.part", "the installed package 'math' does not have", id="part"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(module, expected):
    with pytest.raises(ModuleNotFoundError) as raised:
        importlib.import_module(module)
    why = why_not_found(raised.value, "export")
    assert expected in why
    assert "'keras-bn[export]'" in why


@pytest.mark.parametrize(
    "statement",
    [
        "from keras_bn.export import export_onnx",
        "import keras_bn.export; keras_bn.export.fold_batch_norms",
    ],
)
def test_broken_package_shows_as_what_it_is(tmp_path, statement):
    (tmp_path / "onnx_ir.py").write_text(BROKEN)
    done = tool(program=(sys.executable, "-c", statement), PYTHONPATH=str(tmp_path))
    assert done.returncode == 1
    assert CAUSE in done.stderr.splitlines()[-1]
    assert "math.no_such_name" in done.stderr  # the line, in the traceback


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_broken_package_is_one_line_of_the_command(tmp_path, package):
    (tmp_path / f"{package}.py").write_text(BROKEN)
    done = tool("--help", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")
    assert len(done.stderr.splitlines()) == 1
    assert CAUSE in done.stderr
    shown = tool("--help", "--debug", PYTHONPATH=str(tmp_path))
    assert "Traceback" in shown.stderr
