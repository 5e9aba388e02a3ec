"""Keras models and samples that are odd but honest, and those with code in them."""

import io
import json
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest

from keras_bn.export import ExportError
from keras_bn.export.files import keras_file
from keras_bn.export.files.archives import (
    EXPANSION,
    FLOOR,
    ArchiveError,
    largest_from,
    require_array,
)
from keras_bn.export.files.arrays_file import load_samples
from keras_bn.export.files.keras_file import (
    open_keras_file,
)
from keras_bn.export.files.model_limits import limited_variables
from keras_bn.export.files.stored_weights import declared_in
from tests.export.hostile_files import KERNEL, config, npy, rewrite, weights
from tests.tolerances import assert_close


@pytest.fixture
def with_code(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1, name="add")])
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_code_is_refused(with_code):
    with pytest.raises(ExportError, match=r"Python code.*code in 'add'.*--unsafe to run that code"):
        open_keras_file(with_code)


def test_class_that_is_not_imported_is_named_with_the_way_to_use_it(tmp_path):
    @keras.saving.register_keras_serializable("mine")
    class Doubling(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((3,)), Doubling()]).save(path)
    del keras.saving.get_custom_objects()["mine>Doubling"]
    told = r"model.keras', with the class 'Doubling'\. In Python, import what defines it"
    with pytest.raises(ExportError, match=told):
        open_keras_file(path).load()


def test_code_runs_if_asked_to(with_code):
    for model in (
        open_keras_file(with_code, unsafe=True).load(),
        open_keras_file(with_code, unsafe=True).load_compiled()[0],
    ):
        assert_close(np.asarray(model(np.zeros((1, 3)))), np.ones((1, 3)), 1e-6)


def leading_to_code(kind, path):
    """Make a layer of a file another one, which runs what is elsewhere."""

    def changed(text):
        model = json.loads(text)
        layer = next(x for x in model["config"]["layers"] if x["class_name"] == "ReLU")
        layer["class_name"] = kind
        layer["config"] = {"name": layer["config"]["name"], "filepath": "/etc"}
        return json.dumps(model)

    config(changed)(path)
    return path


@pytest.mark.parametrize("kind", ["TFSMLayer", "TorchModuleWrapper"])
def test_layer_that_leads_to_code_is_refused_whatever_keras_does(kind, files):
    with pytest.raises(ExportError, match=f"must hold no Python code.*code in '{kind}'"):
        open_keras_file(leading_to_code(kind, files / "model.keras"))


def test_code_that_only_keras_finds_is_refused(files, monkeypatch):
    monkeypatch.setattr(keras_file, "RUNNING_OTHERS", ())
    with pytest.raises(ExportError, match=r"must hold no Python code.*safe_mode=False"):
        open_keras_file(leading_to_code("TFSMLayer", files / "model.keras")).load()


def test_code_in_the_loss_leaves_the_model(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=lambda y, z: y - z)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the lambda
        model.save(tmp_path / "model.keras")
    _, missing = open_keras_file(tmp_path / "model.keras").load_compiled()
    assert "its loss and optimizer cannot be restored" in missing


def test_deflated_model_is_loaded(files, small_model, rng):
    path = files / "model.keras"
    rewrite(path, {}, method=zipfile.ZIP_DEFLATED)
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    assert_close(np.asarray(open_keras_file(path).load()(x)), np.asarray(small_model(x)), 1e-6)


def test_compressed_weights_are_loaded(files, small_model):
    def compress(file):
        values = file[KERNEL][()]
        del file[KERNEL]
        file.create_dataset(KERNEL, data=values, compression="gzip")

    weights(compress)(files / "model.keras")
    kernel = open_keras_file(files / "model.keras").load().get_layer("dense").kernel
    assert_close(np.asarray(kernel), np.asarray(small_model.get_layer("dense").kernel), 0)


def test_file_of_the_old_format_is_told_apart(tmp_path):
    path = tmp_path / "model.keras"
    h5py.File(path, "w").close()
    with pytest.raises(ExportError, match="it is an HDF5 file"):
        open_keras_file(path).load()


def test_groups_in_a_circle_are_read_once():
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        inner = file.create_group("a/b")
        inner["again"] = file["a"]
        inner["root"] = file["/"]
        inner["values"] = np.zeros(10, np.float32)
        file["same"] = inner["values"]
    assert declared_in(stream, len(stream.getvalue())) == 40


def test_optimizer_state_that_is_not_stored_is_allowed(tmp_path):
    model = keras.Sequential([keras.Input((4000,)), keras.layers.Dense(4000)])  # 64 MB
    model.compile("adam", loss="mse")
    stored = 4 * 4000 * 4001
    with limited_variables(stored):
        model.optimizer.build(model.trainable_variables)
    assert len(model.optimizer.variables) >= 4


def test_limit_ends_with_the_block():
    create = keras.Variable.__init__
    with pytest.raises(ArchiveError, match=r"shape \(67108865,\)"), limited_variables(1):
        keras.Variable("zeros", (FLOOR // 4 + 1,))
    assert keras.Variable.__init__ is create


def test_largest_from():
    assert largest_from(1) == FLOOR
    assert largest_from(FLOOR) == EXPANSION * FLOOR


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_samples_are_loaded(save, tmp_path, rng):
    x = rng.normal(size=(3, 2)).astype(">f2")
    save(tmp_path / "samples.npz", x=x, empty=np.zeros((0, 5)), scalar=np.int8(3))
    loaded = load_samples(tmp_path / "samples.npz")
    np.testing.assert_array_equal(loaded["x"], x)
    assert loaded["empty"].shape == (0, 5)
    assert loaded["scalar"] == 3


def test_compressed_zeros_are_loaded(tmp_path):
    np.savez_compressed(tmp_path / "samples.npz", x=np.zeros(10**7, np.float32))  # to a thousandth
    assert load_samples(tmp_path / "samples.npz")["x"].shape == (10**7,)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_array_of_every_version(version):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros(3, [("a", "f4")]), version=version)
    held = stream.tell()
    stream.seek(0)
    require_array(stream, held)
    stream.seek(0)
    with pytest.raises(ArchiveError, match="declares 12 bytes"):
        require_array(stream, held - 1)


def test_array_of_nothing_has_no_size():
    content = npy((10**6, 10**6), dtype="|V0")
    require_array(io.BytesIO(content), len(content))


@pytest.mark.parametrize("words", ["bench {0} --seconds 0.1", "check {0} {1} --no-explain"])
def test_architecture_is_read_once(words, run, files, monkeypatch):
    read, original = [], keras_file._config_of
    monkeypatch.setattr(keras_file, "_config_of", lambda path: read.append(path) or original(path))
    words = words.format(files / "model.keras", files / "model.onnx").split()
    assert run(*words, "--quiet").returncode == 0
    assert read == [files / "model.keras"]


def test_architecture_is_read_once_where_the_loss_is_lost(files, monkeypatch):
    read, original = [], keras_file._config_of
    monkeypatch.setattr(keras_file, "_config_of", lambda path: read.append(path) or original(path))
    model, missing = open_keras_file(files / "model.keras").load_compiled()
    assert missing
    assert model.built
    assert read == [files / "model.keras"]
