"""The smoke tests with pairs of TensorFlow and Keras, each in an environment of its own.

    python tests/versions.py          every pair, with a table: `make versions`
    python tests/versions.py oldest   every declared lower bound: `make oldest`
    python tests/versions.py release  each file in dist/, without the checkout: `make release`

pip chooses what is not pinned, from the bounds that pyproject.toml declares. Environments stay in
.versions/. Imports the standard library alone, because it runs before anything is installed.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".versions"
OLDEST = "3.11"  # Python with every lower bound
PAIRS = [  # Python, TensorFlow, Keras: the ends, each end with the other, and two between
    ("3.11", "2.18.1", "3.8.0"),
    ("3.12", "2.18.1", "3.15.1"),
    ("3.12", "2.19.1", "3.10.0"),
    ("3.13", "2.20.0", "3.12.4"),
    ("3.13", "2.21.0", "3.15.1"),
]
COLUMNS = ("tensorflow", "keras", "numpy", "onnx", "onnxruntime", "protobuf", "ml_dtypes")
EXTRAS = "[demo,plots,report]"


def main(words: Sequence[str]) -> int:
    """Run the tests; return the exit status."""
    if words == ["oldest"]:
        line, passed = trial(OLDEST, lower_bounds())
        print(line)
        return not passed
    if words == ["release"]:
        return not all([release(file) for file in sorted((ROOT / "dist").iterdir())])
    print(f"| Python | {' | '.join(COLUMNS)} | result |\n|{'---|' * (len(COLUMNS) + 2)}")
    ended = [trial(OLDEST, lower_bounds())]
    print(ended[0][0], flush=True)
    for python, tensorflow, keras in PAIRS:
        ended.append(trial(python, [f"tensorflow=={tensorflow}", f"keras=={keras}"]))
        print(ended[-1][0], flush=True)
    return any(passed is False for _, passed in ended)


def lower_bounds() -> list[str]:
    """Return the lower bounds that pyproject.toml declares, as the versions to install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        declared += [one for one in extra if ">=" in one]  # not `keras-bn[...]`
    return ["{}=={}.*".format(*one.split(">=")) for one in declared]


def trial(version: str, pins: Sequence[str]) -> tuple[str, bool | None]:
    """Install what is pinned with what pip adds, and run the smoke tests.

    Args:
        version: Of Python, such as "3.11".
        pins: Requirements with a version each.

    Returns:
        A row of the table, and whether all passed; None without such a Python.
    """
    asked = dict(pin.split("==") for pin in pins)
    wanted = [version, asked["tensorflow"], asked["keras"]]
    found = interpreter(version)
    if found is None:
        return row(wanted, f"not run: no Python {version}"), None
    name = "oldest" if len(pins) > 2 else "-".join(re.sub("[^0-9.]", "", pin) for pin in pins)
    folder = FOLDER / f"{version}-{name}"
    python = install(found, folder, pins)
    if python is None:
        return row(wanted, f"pip failed: see .versions/{folder.name}.log"), False
    result, passed = smoke(python, folder.name, ROOT)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    )
    versions = dict(line.split("==") for line in listed.stdout.splitlines() if "==" in line)
    cells = [version, *(versions.get(column, "") for column in COLUMNS)]
    return row(cells, "passed" if passed else result), passed


def release(file: Path) -> bool:
    """Install a file of dist/ in an empty environment and run the smoke tests; say how it went.

    The tests stand alone in a folder, so that they import what is installed.
    """
    kind = "wheel" if file.suffix == ".whl" else "sdist"
    folder = FOLDER / f"release-{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    python = install(sys.executable, folder, [], f"{file}{EXTRAS}")
    if python is None:
        print(f"{file.name}: pip failed: see .versions/{folder.name}.log")
        return False
    with tempfile.TemporaryDirectory() as alone:
        shutil.copytree(ROOT / "tests", Path(alone, "tests"))
        shutil.copy(ROOT / "pyproject.toml", alone)
        result, passed = smoke(python, folder.name, Path(alone))
    print(f"{file.name}: {result}", flush=True)
    return passed


def smoke(python: str, name: str, folder: Path) -> tuple[str, bool]:
    """Run the smoke tests of a folder; return how it went in words, and whether all passed."""
    start = time.monotonic()
    command = [python, "-m", "pytest", "-m", "smoke", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    counts = re.findall(r"^\d+ (?:passed|failed).*(?= in )", done.stdout, re.MULTILINE)
    result = counts[-1].split(", ")[0] if counts else "none ran"  # failures stand first
    print(f"{name}: {result} in {seconds:.0f} s", file=sys.stderr)
    return result, not done.returncode


def row(cells: Sequence[str], result: str) -> str:
    """Return a row of the table: what was asked for or found, and how it went."""
    empty = [""] * (len(COLUMNS) + 1 - len(cells))
    return f"| {' | '.join([*cells, *empty, result])} |"


def install(found: str, folder: Path, pins: Sequence[str], what: str = "") -> str | None:
    """Make an environment unless it is there; return its Python, or None where pip fails.

    Args:
        found: The Python to make it with.
        folder: The environment's.
        pins: Requirements with a version each.
        what: The package to install; none for the checkout.
    """
    python = str(folder / "bin" / "python")
    packages = [*([what] if what else ["--editable", f".{EXTRAS}"]), "--group", "test"]
    wanted = "\n".join([*pins, *packages, (ROOT / "pyproject.toml").read_text()])
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    FOLDER.mkdir(exist_ok=True)
    constraints = FOLDER / f"{folder.name}.txt"
    pinned = "\n".join(pins)
    # What an interrupt left, or other pins made, is begun anew.
    finished = stamp.exists() and constraints.read_text() == pinned
    stamp.unlink(missing_ok=True)
    constraints.write_text(pinned)
    with Path(f"{folder}.log").open("w") as log:
        for command in (
            [found, "-m", "venv", *([] if finished else ["--clear"]), str(folder)],
            [python, "-m", "pip", "install", "--upgrade", "pip"],
            [python, "-m", "pip", "install", "--constraint", str(constraints), *packages],
        ):
            done = subprocess.run(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False
            )
            if done.returncode:
                return None
    stamp.write_text(wanted)
    return python


def interpreter(version: str) -> str | None:
    """Return a Python of a version, of this machine's path or of pyenv, that runs."""
    pyenv = Path.home() / ".pyenv" / "versions"
    for program in (shutil.which(f"python{version}"), *pyenv.glob(f"{version}.*/bin/python")):
        runs = program and subprocess.run(
            [program, "-V"], capture_output=True, text=True, check=False
        )
        if runs and runs.stdout.startswith(f"Python {version}."):
            return str(program)
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
