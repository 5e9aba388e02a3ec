"""A file of another kind than a command wants gets the line that helps, without TensorFlow."""

import keras
import numpy as np
import pytest

from keras_bn.export.commands.model_and_samples import samples_from
from keras_bn.export.commands.statistics.arrays import inputs_among
from keras_bn.export.files.arrays_file import named_after


@pytest.fixture
def other(files):
    """The folder of `files` with a SavedModel, arrays and a model of two inputs beside."""
    (files / "saved").mkdir()
    (files / "saved" / "saved_model.pb").write_bytes(b"")
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    keras.Model([a, b], a + b).save(files / "two.keras")
    np.savez(files / "one.npz", a=np.ones((2, 3)))
    np.savez(files / "several.npz", a=np.ones((2, 3)), b=np.ones((2, 3)), y=np.ones(2))
    return files


SAID = [
    ("export saved out.onnx", "it is a SavedModel of TensorFlow. Save the Keras model itself"),
    ("fold saved out.onnx", "it is a SavedModel of TensorFlow"),
    ("check model.keras saved", "it is a SavedModel of TensorFlow"),
    ("inspect saved --data one.npz", "it is a SavedModel of TensorFlow"),
    ("export model.onnx out.onnx", "an ONNX file. `keras-bn fold` folds one"),
    ("inspect model.onnx --data one.npz", "an ONNX file. `keras-bn fold` folds one"),
    ("check model.keras model.keras", "`keras-bn export` makes an ONNX file"),
    ("check model.onnx model.keras", "Give the Keras model first: keras-bn check model.keras"),
    ("fold model.keras out.onnx", "`keras-bn export` makes an ONNX file"),
    ("export model.keras none/out.onnx", "an existing, writable folder. Received: 'none/out.onnx'"),
    ("export model.keras out.onnx --opset 12", "--opset must be from 13 to 18. Received: 12."),
    ("export model.keras out.onnx --opset 19", "--opset must be from 13 to 18. Received: 19."),
    ("export two.keras out.onnx --input one.npz", "each of the inputs ['a', 'b']"),
    ("check two.keras model.onnx --input one.npz", "each of the inputs ['a', 'b']"),
    ("export model.keras out.onnx --input several.npz", "['image'], or one named \"x\". Received"),
]


@pytest.mark.parametrize(("words", "said"), SAID, ids=[words for words, _ in SAID])
def test_line_that_helps(words, said, other, run, monkeypatch):
    monkeypatch.chdir(other)
    monkeypatch.setattr("keras_bn.export.commands.model_and_samples.quiet_tensorflow", None)
    done = run(*words.split())
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (other / "out.onnx").exists()


def test_whole_model_in_hdf5_is_exported_and_checked(files, small_model, run, monkeypatch):
    monkeypatch.chdir(files)
    small_model.save("base.h5")
    assert run("export", "base.h5", "base.onnx", "--quiet").returncode == 0
    assert run("check", "base.h5", "base.onnx", "--quiet").returncode == 0


NAMES = [{"x", "y"}, {"image"}, {"photos", "y"}, {"image", "x", "y"}, {"x", "dense_bn"}, {""}]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: " ".join(sorted(names)))
def test_samples_are_found_as_inspect_finds_them(names, small_model, rng):
    images = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)
    others = {name: np.zeros((3, 5)) for name in names & {"y", "dense_bn"}}
    arrays = others | {name: images for name in names - set(others)}
    np.testing.assert_array_equal(inputs_among(arrays, small_model)["image"], images)


@pytest.mark.parametrize("names", NAMES, ids=lambda names: " ".join(sorted(names)))
def test_samples_for_an_onnx_file_are_found_likewise(names):
    arrays = {name: np.full(1, name in ("y", "dense_bn")) for name in names}
    found = named_after(arrays, ["image"], ["dense_bn"])
    assert [*found] == ["image"]
    assert not found["image"].any()


def test_samples_that_are_not_told_apart_stay_as_they_are():
    arrays = {"a": np.zeros(1), "b": np.zeros(1)}
    assert named_after(arrays, ["image"], []) is arrays
    assert named_after({"x": arrays["a"]}, ["a", "b"], []).keys() == {"x"}


@pytest.mark.parametrize("words", ["check model.onnx model.onnx", "fold model.onnx out.onnx"])
def test_files_take_the_samples_of_a_network(words, files, rng, run, monkeypatch):
    monkeypatch.chdir(files)
    images = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)
    np.savez(files / "val.npz", x=images, y=np.zeros(3))
    done = run(*words.split(), "--input", "val.npz", "--quiet")
    assert done.returncode == 0, done.stderr


def test_samples_of_a_file_are_found(small_model, rng, tmp_path):
    images = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)
    np.savez(tmp_path / "val.npz", x=images, y=np.zeros(3))
    arrays, notes = samples_from(tmp_path / "val.npz", None, [], [])(small_model)
    np.testing.assert_array_equal(arrays["image"], images)
    assert notes == ()
