"""The wheel, as a user gets it: built, installed in an empty environment, used elsewhere."""

import email
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*words, cwd):
    left_out = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")  # the build warns of the second
    environment = {key: value for key, value in os.environ.items() if key not in left_out}
    command = [str(word) for word in words]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A folder with the sources, the wheel, and what the build printed, as build.log."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # the build writes beside the source; keep the checkout clean
    run("git", "clone", "--quiet", ROOT, source, cwd=folder)
    log = run(sys.executable, "-m", "build", "--outdir", folder, source, cwd=folder)
    (folder / "build.log").write_text(log)
    return folder


@pytest.fixture
def wheel(build):
    (path,) = build.glob("*.whl")
    return path


def test_wheel_is_built_without_a_warning(build):
    lines = (build / "build.log").read_text().splitlines()
    assert any("Successfully built" in line for line in lines)
    assert [line for line in lines if re.search("warn|deprecat", line, re.IGNORECASE)] == []


def test_wheel_holds_every_module(build, wheel):
    names = {*zipfile.ZipFile(wheel).namelist()}
    for folder, package in (("keras_bn", "."), ("export", "export"), ("models", "models")):
        for file in (build / "source" / folder).rglob("*"):
            if file.suffix in (".py", ".typed", ".j2"):
                path = Path("keras_bn", package, file.relative_to(build / "source" / folder))
                assert path.as_posix() in names


def test_wheel_holds_only_keras_bn(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"keras_bn"}
    template = "keras_bn/export/commands/pages/templates/inspection.html.j2"
    assert {"keras_bn/py.typed", "keras_bn/export/pipeline.py", template} <= {*names}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_description_has_no_link_that_an_index_cannot_follow(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = metadata.get_payload()
    assert "## Two commands" in text
    assert re.findall(r"\]\((?!https?:)", text) == []


def test_demo_runs_from_the_wheel_in_an_empty_environment(wheel, tmp_path):
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--upgrade", "pip", cwd=tmp_path)
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[demo]", cwd=tmp_path)
    out = run(environment / "bin" / "keras-bn", "demo", cwd=tmp_path)
    assert re.search(r"batch norms\s+│\s+5 │\s+0 │", out)
    assert (tmp_path / "keras-bn-demo" / "digits_cnn.onnx").exists()
    location = run(python, "-c", "import keras_bn; print(keras_bn.__file__)", cwd=tmp_path)
    assert Path(location.strip()).is_relative_to(environment)
