"""The house stands: what may import what, by the import statements of every file.

Those under TYPE_CHECKING and inside functions count like any other.
"""

import ast
import functools
import graphlib
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOMES = {"keras_bn": "keras_bn", "export": "keras_bn.export", "models": "keras_bn.models"}
AT_THE_DOOR = 8  # Python files at the root of export/
FLOORS = 10  # of modules that stand on each other


def module_of(path):
    """Return the name that a file has once it is installed."""
    top, *inner = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([HOMES[top], *inner]).removesuffix(".__init__")


def files():
    """Return the files of the packages, by the name that each has once installed."""
    return {module_of(path): path for top in HOMES for path in sorted((ROOT / top).rglob("*.py"))}


def imported(module, path, modules):
    """Return which of some modules a file imports, itself left out."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level]
            start = ".".join([*(base if node.level else []), *filter(None, [node.module])])
            names = {f"{start}.{alias.name}" for alias in node.names}
            found |= {name if name in modules else start for name in names}
    return found & modules - {module}


@functools.cache
def house():
    """Return what each module imports."""
    paths = files()
    return {module: imported(module, path, set(paths)) for module, path in paths.items()}


def stage_of(module):
    """Return the stage that a module belongs to; None if it is of none, or runs them all."""
    parts = module.removeprefix("keras_bn.export.stages.").split(".")
    return parts[0] if parts[0] not in ("keras_bn", "conversion", "converted") else None


def floors(imports):
    """Return the height of the longest stack of modules each of which imports the next."""
    height = {}
    for module in graphlib.TopologicalSorter(imports).static_order():
        height[module] = 1 + max((height[other] for other in imports[module]), default=0)
    return max(height.values())


def test_no_import_runs_in_a_circle():
    graphlib.TopologicalSorter(house()).prepare()


def test_the_house_is_no_tower():
    assert floors(house()) <= FLOORS


def test_a_circle_would_be_found(tmp_path):
    (tmp_path / "a.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import b")
    (tmp_path / "b.py").write_text("def f():\n    from . import a\n")
    imports = {n: imported(f"p.{n}", tmp_path / f"{n}.py", {"b", "p.a"}) for n in "ab"}
    assert imports == {"a": {"b"}, "b": {"p.a"}}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def test_no_stage_imports_another():
    crossing = [
        (module, other)
        for module, others in house().items()
        for other in others
        if stage_of(module) and stage_of(other) not in (None, stage_of(module))
    ]
    assert crossing == []


@pytest.mark.parametrize(
    ("home", "upstairs"),
    [
        pytest.param("keras_bn", "keras_bn.export", id="keras_bn imports nothing of export"),
        pytest.param("keras_bn.models", "keras_bn.export", id="nor do the models"),
        pytest.param("keras_bn.export.graph", "keras_bn.export.stages", id="graph no stage"),
        pytest.param("keras_bn.export.stages", "keras_bn.export.parity", id="stages no parity"),
        pytest.param(
            "keras_bn.export", "keras_bn.export.commands", id="only the door the commands"
        ),
    ],
)
def test_nothing_imports_what_is_built_on_it(home, upstairs):
    climbing = [
        (module, other)
        for module, others in house().items()
        for other in others
        if f"{module}.".startswith(f"{home}.")
        and not f"{module}.".startswith(f"{upstairs}.")
        and not module.endswith(".__main__")
        and f"{other}.".startswith(f"{upstairs}.")
    ]
    assert climbing == []


def test_few_files_stand_at_the_door_of_export():
    assert len(list((ROOT / "export").glob("*.py"))) <= AT_THE_DOOR


def test_every_folder_is_installed():
    with (ROOT / "pyproject.toml").open("rb") as file:
        packages = tomllib.load(file)["tool"]["setuptools"]["packages"]
    contents = (path for top in HOMES for path in (ROOT / top).rglob("*.*") if path.is_file())
    folders = {module_of(path.parent) for path in contents if path.parent.name != "__pycache__"}
    assert sorted(packages) == sorted(folders)
