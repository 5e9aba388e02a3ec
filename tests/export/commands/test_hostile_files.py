"""Every command that opens a hostile file refuses it: one line, status 2, nothing written."""

import os
import sys

import keras
import numpy as np
import pytest

from keras_bn.export import export_onnx
from tests.commands import TOOL, assert_one_line, in_a_process
from tests.export.hostile_files import KERAS, ONNX, SAMPLES, graph, unpacks_to_much, vast_when_run

MEMORY = 1_500_000_000  # bytes; TensorFlow alone takes 700 MB

OPENING_KERAS = {
    "check": ("check", "model.keras", "model.onnx"),
    "export": ("export", "model.keras", "out.onnx"),
    "inspect": ("inspect", "model.keras", "--data", "good.npz"),
    "recalibrate": ("recalibrate", "model.keras", "out.keras", "--data", "good.npz"),
    "bench": ("bench", "model.keras"),
}
OPENING_ONNX = {
    "check": ("check", "model.keras", "model.onnx"),
    "fold": ("fold", "model.onnx", "out.onnx"),
    "fold --dry-run": ("fold", "model.onnx", "--dry-run"),
    "bench": ("bench", "model.onnx"),
}
OPENING_SAMPLES = {
    "check": ("check", "model.keras", "model.onnx", "--input", "samples"),
    "export": ("export", "model.keras", "out.onnx", "--input", "samples"),
    "inspect": ("inspect", "model.keras", "--data", "samples"),
    "recalibrate": ("recalibrate", "model.keras", "out.keras", "--data", "samples"),
}


def with_ids(corpus):
    return [pytest.param(damage, words, id=name) for name, (damage, words) in corpus.items()]


def contents(folder):
    """What is in a folder, followed by nothing: a pipe would wait for ever."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        if path.is_file() and not path.is_symlink()
        else os.lstat(path).st_mode
        for path in folder.rglob("*")
    }


def within(folder, words):
    """Return the words of a command with the names of files as paths."""
    return [folder / word if "." in word else word for word in words]


def assert_refused(run, folder, words, expected):
    before = contents(folder)
    assert_one_line(run(*within(folder, words)), expected)
    assert contents(folder) == before


@pytest.fixture
def samples(files):
    np.savez(files / "good.npz", image=np.zeros((4, 6, 6, 3), np.float32))
    return files


@pytest.mark.parametrize("words", OPENING_KERAS.values(), ids=OPENING_KERAS)
@pytest.mark.parametrize(("damage", "expected"), with_ids(KERAS))
def test_keras_model(run, samples, words, damage, expected):
    damage(samples / "model.keras")
    assert_refused(run, samples, words, expected)


@pytest.mark.parametrize("words", OPENING_KERAS.values(), ids=OPENING_KERAS)
def test_code_in_a_model_runs_only_for_those_who_ask(run, samples, words):
    image = keras.Input((6, 6, 3), name="image")
    x = keras.layers.Lambda(lambda x: x * 2.0, name="twice")(image)
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(x))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    model.save(samples / "model.keras")
    export_onnx(model, samples / "model.onnx")
    assert_refused(run, samples, words, "'twice'")
    seconds = ("--seconds", "0.1") if words[0] == "bench" else ()
    done = run(*within(samples, words), "--unsafe", "--quiet", *seconds)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("words", OPENING_ONNX.values(), ids=OPENING_ONNX)
@pytest.mark.parametrize(("damage", "expected"), with_ids(ONNX))
def test_onnx_model(run, files, words, damage, expected):
    damage(files / "model.onnx")
    assert_refused(run, files, words, expected)


@pytest.mark.parametrize("words", OPENING_SAMPLES.values(), ids=OPENING_SAMPLES)
@pytest.mark.parametrize(("write", "expected"), with_ids(SAMPLES))
def test_samples(run, files, words, write, expected):
    write(files / "samples.npz")
    words = ["samples.npz" if word == "samples" else word for word in words]
    assert_refused(run, files, words, expected)


@pytest.mark.parametrize(
    ("damage", "expected"),
    with_ids(
        {"huge-layer": KERAS["huge-layer"], "zip-bomb": (unpacks_to_much, "it declares 1,073,")}
    ),
)
def test_keras_model_keeps_memory_bounded(files, damage, expected):
    damage(files / "model.keras")
    done, memory = in_a_process(TOOL, *within(files, OPENING_KERAS["export"]))
    assert_one_line(done, expected)
    assert memory < MEMORY


def test_onnx_model_keeps_memory_bounded(files):
    graph(vast_when_run)(files / "model.onnx")
    program = (sys.executable, "-m", "keras_bn.export.parity")
    done, memory = in_a_process(*program, files / "model.keras", files / "model.onnx")
    assert_one_line(done, "ConstantOfShape")
    assert memory < MEMORY
