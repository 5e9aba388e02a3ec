"""docs/deploying.md from its first block to its last, each runtime in an environment of its own."""

import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.commands import TOOL
from tests.docs.pages import PAGES, blocks

pytestmark = pytest.mark.slow

PAGE = "docs/deploying.md"
VERSIONS = dict(re.findall(r"^\| ([\w-]+)[^|]*\| ([\d.]+) \|", PAGES[PAGE], re.MULTILINE))
PACKAGES = {"openvino": "OpenVINO", "ai-edge-litert": "LiteRT"}
LEAST = 0.97  # accuracy, as the demo asks for


def run(*words, cwd):
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(*words, cwd):
    """Install packages, or skip the test where no index has them."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        pytest.skip(f"{words[0]} installs nothing here: {done.stderr[-200:]}")


def code(*words, kind="python"):
    """Return the one block of a kind that has some words."""
    found = [one.text for one in blocks(PAGE) if one.kind == kind]
    (block,) = (text for text in found if all(word in text for word in words))
    return block


def accuracy(printed):
    return float(re.search(r": (0\.\d+)$", printed.strip())[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder that `keras-bn demo` makes, with what the page's blocks add to it in Keras."""
    above = tmp_path_factory.mktemp("deploying")
    demo, check = (one.text for one in blocks(PAGE) if one.kind == "sh")
    run(TOOL, *shlex.split(demo)[1:], cwd=above)
    made = above / "keras-bn-demo"
    assert accuracy(run(sys.executable, "-c", code("import onnxruntime\n"), cwd=made)) > LEAST
    run(sys.executable, "-c", code("quantize_static"), cwd=made)
    run(TOOL, *shlex.split(check)[1:], cwd=made)
    run(sys.executable, "-c", code("TFLiteConverter"), cwd=made)
    return made


@pytest.fixture(scope="module")
def runtimes(tmp_path_factory):
    """A Python with the runtimes of the page, in its versions."""
    environment = tmp_path_factory.mktemp("runtimes")
    run(sys.executable, "-m", "venv", environment, cwd=environment)
    python = environment / "bin" / "python"
    wanted = [f"{package}=={VERSIONS[name]}" for package, name in PACKAGES.items()]
    install(python, "-m", "pip", "install", "--quiet", *wanted, "numpy", cwd=environment)
    return python


@pytest.mark.parametrize("words", ["import openvino", "ai_edge_litert"])
def test_other_runtimes_classify_as_well(words, folder, runtimes):
    assert accuracy(run(runtimes, "-c", code(words), cwd=folder)) > LEAST


def test_javascript_gives_the_same_classes(folder, tmp_path):
    import numpy as np
    import onnxruntime

    if not (shutil.which("npm") and shutil.which("node")):
        pytest.skip("needs node and npm on PATH")
    for file in ("images.bin", "digits_cnn.onnx"):
        shutil.copy(folder / file, tmp_path)
    package = f"onnxruntime-web@{VERSIONS['onnxruntime-web']}"
    install("npm", "install", "--no-audit", "--no-fund", package, cwd=tmp_path)
    (tmp_path / "page.mjs").write_text(code("onnxruntime-web", kind="js"))
    printed = run("node", os.fspath(tmp_path / "page.mjs"), cwd=tmp_path)
    session = onnxruntime.InferenceSession(folder / "digits_cnn.onnx")
    with np.load(folder / "digits_test.npz") as arrays:
        (expected,) = session.run(None, {"image": arrays["image"][:10]})
    assert printed.split(": ")[1].split() == [str(digit) for digit in expected.argmax(1)]
