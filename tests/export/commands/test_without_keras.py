"""Where neither Keras nor TensorFlow is installed, ONNX files are still folded and checked."""

import subprocess
import sys
import zipfile

import onnx
import pytest

from keras_bn.export.files.hdf5_file import HDF5
from tests.export.foreign_graphs import TORCH, foreign

NOT_INSTALLED = (
    "import sys\n"
    "for name in ('tensorflow', 'keras', 'tf2onnx', 'h5py', 'sklearn', 'jinja2', 'matplotlib'):\n"
    "    sys.modules[name] = None\n"
)
COMMAND = (
    f"{NOT_INSTALLED}sys.argv[0] = 'keras-bn'\nfrom keras_bn.export.__main__ import main\nmain()"
)
FROM_PYTHON = (
    f"{NOT_INSTALLED}from keras_bn.export import fold_batch_norms\n"
    "print(len(fold_batch_norms(sys.argv[1], check=True)[1].folds))"
)


def run(code, *words):
    program = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "in.onnx"
    onnx.save(foreign(TORCH), path)
    return path


def test_files_are_folded_checked_and_timed(path, tmp_path):
    out = tmp_path / "out.onnx"
    for words, told in (
        (["fold", path, out, "--time"], "agrees"),
        (["check", path, out], "agrees"),
        (["bench", path, "--seconds", "0.1"], "folded"),
    ):
        done = run(COMMAND, *words)
        assert (done.returncode, done.stderr) == (0, "")
        assert told in done.stdout


def test_files_are_folded_and_proven_from_python(path):
    done = run(FROM_PYTHON, path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


@pytest.mark.parametrize(("suffix", "package"), [("keras", "tensorflow"), ("h5", "h5py")])
def test_what_needs_them_says_so_in_one_line(tmp_path, suffix, package):
    path = tmp_path / f"model.{suffix}"
    path.write_bytes(HDF5)
    if suffix == "keras":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (("config.json", b"{}"), ("model.weights.h5", HDF5)):
                archive.writestr(name, content)
    done = run(COMMAND, "bench", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"keras-bn: this command needs the package {package!r}, which is not installed. "
        "Install the extra: pip install 'keras-bn[export]'.\n"
    )
