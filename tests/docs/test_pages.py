"""Every block of Python on a page runs and prints what the page says; so does every command."""

import importlib.util
import re
import shlex
import shutil
import urllib.parse
import warnings

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

import keras_bn
from keras_bn.export import export_onnx
from tests.docs.pages import FENCED, PAGES, ROOT, blocks, commands
from tests.export.foreign_graphs import TORCH, foreign

WITH_PYTHON = [
    name
    for name in PAGES
    if any(one.kind == "python" and one.use != "elsewhere" for one in blocks(name))
]
SLOW = {"docs/why.md"}  # trains for half a minute
# Pages with blocks that other tests run: on two workers, in other runtimes.
ELSEWHERE = {"docs/replicas.md", "docs/deploying.md"}
OTHER_KINDS = {"text", "sh", "js", "{toctree}", "{include}"}
THEIRS = TORCH.replace("[batch,3,8,8] x", "[batch,3,h,w] image").replace("(x, w)", "(image, w)")


def build_model():
    """Build the network that pages take for given: a batch norm of each kind."""
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Rescaling(1 / 255, name="rescaling")(image)
    x = keras.layers.Conv2D(8, 3, use_bias=False, name="conv")(x)
    x = keras.layers.ReLU()(keras_bn.BatchNormalization(synchronized=True, name="conv_bn")(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Dense(16, name="dense")(x))
    model = keras.Model(image, keras.layers.Dense(10, "softmax", name="digit")(x), name="digits")
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


class Subclassed(keras.Model):
    """A network that does not tell its inputs."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = keras.layers.Conv2D(4, 3), keras_bn.BatchNormalization()

    def call(self, x):
        return self.bn(self.conv(x))


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A folder with the files that pages take for given."""
    folder = tmp_path_factory.mktemp("shelf")
    keras.utils.set_random_seed(0)
    model = build_model()
    images = 255 * np.random.default_rng(0).random((64, 8, 8, 1), np.float32)
    digits = np.arange(64) % 10
    model.fit(images, digits, epochs=1, verbose=0)
    model.save(folder / "model.keras")
    export_onnx(model, folder / "model.onnx")
    for name in ("first", "before", "after", "float"):
        shutil.copy(folder / "model.onnx", folder / f"{name}.onnx")
    onnx.save(foreign(THEIRS), folder / "theirs.onnx")
    for name in ("x", "samples", "val"):
        np.savez(folder / f"{name}.npz", image=images, y=digits)
    (folder / "photos").mkdir()
    for i, image in enumerate(images[:4]):
        png = tf.io.encode_png(image.astype(np.uint8)).numpy()
        (folder / "photos" / f"{i}.png").write_bytes(png)
    return folder


@pytest.fixture
def folder(shelf, tmp_path, monkeypatch):
    """The working folder, with those files."""
    shutil.copytree(shelf, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def given(folder):
    """The names that pages take for given."""
    with np.load(folder / "x.npz") as arrays:
        images, digits = arrays["image"], arrays["y"]
    model = keras.models.load_model(folder / "model.keras")
    model.compile("sgd", "sparse_categorical_crossentropy")
    found = {"keras": keras, "keras_bn": keras_bn, "np": np, "tf": tf, "export_onnx": export_onnx}
    found |= {"model": model, "x": images, "y": digits, "images": images, "x_new": 255 - images}
    return found | {"build_model": build_model, "global_batch_size": 16, "subclassed": Subclassed()}


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.slow] if page in SLOW else [], id=page)
        for page in WITH_PYTHON
    ],
)
def test_python_of_a_page_runs_and_prints_what_it_says(page, given, capsys):
    ran, printed = 0, ""
    for one in blocks(page):
        if one.kind == "text" and one.follows:
            assert one.text == printed
        elif one.kind == "python":
            capsys.readouterr()
            if one.use != "elsewhere":
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # a reader's screen is no gate
                    exec(compile(one.text, page, "exec"), given)  # noqa: S102
            ran, printed = ran + 1, capsys.readouterr().out
    assert ran


@pytest.mark.parametrize("page", PAGES)
def test_blocks_are_of_a_kind_that_is_run_or_read(page):
    assert {one.kind for one in blocks(page)} <= {"python", *OTHER_KINDS}
    assert page in ELSEWHERE or not any(one.use == "elsewhere" for one in blocks(page))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_commands_of_a_page_run(page, folder, run):
    for line in commands(page):
        words = shlex.split(line)
        if words[0] == "keras-bn":
            done = run(*words[1:])
            assert done.returncode == 0, (line, done.stdout, done.stderr)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_what_a_shell_is_told_to_run_is_there(page):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in commands(page):
        if line.startswith("make "):
            target = line.split()[1]
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
        if line.startswith("python -m "):
            module = line.split()[2]
            assert module == "pip" or importlib.util.find_spec(module), line


@pytest.mark.parametrize("page", PAGES)
def test_links_that_lead_outside_are_addresses(page):
    text = FENCED.sub("", PAGES[page])
    for link in re.findall(r"\]\(([a-z]+:[^)\s]*)\)", text):
        parts = urllib.parse.urlsplit(link)
        assert (parts.scheme, bool(parts.hostname)) == ("https", True), link
        assert "." in parts.hostname, link
