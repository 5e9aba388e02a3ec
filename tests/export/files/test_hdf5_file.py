"""Whole models in HDF5: opened as Keras opens them, in safe mode and within bounds."""

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving import legacy_h5_format

from keras_bn.export import ExportError
from keras_bn.export.files.keras_file import (
    input_names_in,
    open_keras_file,
    output_names_in,
)


@pytest.fixture
def path(small_model, tmp_path):
    small_model.compile("sgd", keras.losses.MeanSquaredError())
    small_model.save(tmp_path / "model.h5")
    return tmp_path / "model.h5"


@pytest.mark.parametrize("name", ["model.h5", "model.hdf5", "model.keras", "model"])
def test_whole_model_of_any_name_is_opened(name, path, small_model, rng):
    path = path.rename(path.with_name(name))
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(open_keras_file(path).load()(x), small_model(x))
    assert open_keras_file(path).input_names == ["image"]


def test_loss_and_optimizer_come_along(path):
    model, lost = open_keras_file(path).load_compiled()
    assert lost is None
    assert model.compiled


def test_weights_alone_are_no_model(small_model, tmp_path):
    small_model.save_weights(tmp_path / "model.weights.h5")
    with pytest.raises(ExportError, match="of weights alone, without the model"):
        open_keras_file(tmp_path / "model.weights.h5")


def test_code_runs_only_if_that_is_asked_for(tmp_path):
    x = keras.Input((3,))
    keras.Model(x, keras.layers.Lambda(lambda t: t * 2.0)(x)).save(tmp_path / "model.h5")
    with pytest.raises(ExportError, match=r"must hold no Python code.*--unsafe"):
        open_keras_file(tmp_path / "model.h5").load()
    model = open_keras_file(tmp_path / "model.h5", unsafe=True).load()
    np.testing.assert_array_equal(model(np.ones((1, 3))), [[2.0, 2.0, 2.0]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.__setitem__("more", h5py.ExternalLink("/etc/x.h5", "/w")), "ExternalLink"),
        (lambda f: f.create_dataset("more", (2**20, 2**20), "f4", chunks=(1, 1)), "declare"),
        (lambda f: f.attrs.__setitem__("model_config", "[1]"), "no JSON object"),
        (lambda f: f.attrs.__setitem__("model_config", "{"), "JSONDecodeError"),
        (lambda f: f.attrs.__delitem__("model_config"), "weights alone"),
    ],
    ids=["link", "size", "kind", "text", "none"],
)
def test_hostile_file_is_one_error(change, said, path):
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ExportError, match=said):
        open_keras_file(path).load()


def test_truncated_file_is_one_error(path):
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ExportError, match="must be a whole file"):
        open_keras_file(path).load()


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"class_name": "Functional", "config": {"input_layers": [["a", 0, 0]]}}, ["a"]),
        ({"config": {"input_layers": [["a", 0, 0], ["b", 0, 0]]}}, ["a", "b"]),
        ({"config": {"input_layers": ["a", 0, 0]}}, ["a"]),
        ({"config": {"input_layers": {"k": ["a", 0, 0], "l": ["b", 0, 0]}}}, ["a", "b"]),
        ({"class_name": "Sequential", "config": {"layers": []}}, []),
        ({"class_name": "Mine", "config": None}, []),
        ({}, []),
    ],
)
def test_names_of_inputs_stand_in_the_architecture(config, names):
    assert input_names_in(config) == names


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({"config": {"output_layers": [["a", 0, 0], ["b", 0, 0]]}}, ["a", "b"]),
        ({"config": {"output_layers": {"k": ["a", 0, 0]}}}, ["a", "k"]),
        ({"class_name": "Sequential", "config": {"layers": [{"config": {"name": "a"}}]}}, ["a"]),
        ({"class_name": "Sequential", "config": {"layers": []}}, []),
        ({"class_name": "Mine", "config": None}, []),
    ],
)
def test_names_of_outputs_stand_there_too(config, names):
    assert output_names_in(config) == names


def test_keras_without_a_safe_mode_for_hdf5_is_told(path, monkeypatch):
    newest = legacy_h5_format.load_model_from_hdf5

    def older(filepath, custom_objects=None, compile=True):
        return newest(filepath, custom_objects, compile)

    monkeypatch.setattr(legacy_h5_format, "load_model_from_hdf5", older)
    with pytest.raises(ExportError, match="has no safe mode for HDF5"):
        open_keras_file(path).load()
    assert open_keras_file(path, unsafe=True).load().count_params()
