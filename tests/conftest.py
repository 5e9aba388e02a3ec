import functools
import os
import shutil
import signal
import subprocess

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and programs started here would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci")


def pytest_ignore_collect(collection_path, config):
    """With `-m smoke`, read no file that has no such test: it may be of a newer Keras."""
    if config.getoption("markexpr") != "smoke" or collection_path.suffix != ".py":
        return None
    return "mark.smoke" not in collection_path.read_text() or None


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _fresh_keras():
    """Give every test the same seeds and the layer names of a new process."""
    keras.utils.clear_session(free_memory=False)  # layers were made as tests were collected
    keras.utils.set_random_seed(0)
    yield
    keras.utils.clear_session(free_memory=False)


@pytest.fixture(params=["native", "tensorflow"])
def each_kernel(request, monkeypatch):
    """Run a test on this package's own kernel, where it is built, and again without it."""
    from keras_bn.native import library

    if request.param == "tensorflow":
        monkeypatch.setattr(library, "load", lambda: (None, "this test does without"))
    elif library.load()[0] is None:
        pytest.skip(library.load()[1])
    return request.param


@pytest.fixture
def run(capfd, monkeypatch):
    """Return a function that runs the command line here and gives status, stdout and stderr.

    It starts no Python and imports no TensorFlow, which take five seconds. Warnings are errors
    here, and what C++ writes to the descriptors is in the output.
    """
    from keras_bn.export.__main__ import main

    monkeypatch.setenv("COLUMNS", "200")
    numbers = signal.SIGTERM, signal.SIGHUP, signal.SIGINT
    before = [signal.getsignal(number) for number in numbers]

    def command(*words):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        return subprocess.CompletedProcess(words, stopped.value.code, *capfd.readouterr())

    yield command
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def randomise(model, rng):
    """Give a model's weights values that no initializer would; return the model."""
    for variable in model.variables:
        if not keras.backend.is_float_dtype(variable.dtype):
            continue
        values = rng.normal(size=variable.shape) * 0.5
        if variable.path.endswith("moving_variance"):
            values = values**2 + 0.1
        if variable.path.endswith("gamma"):
            values += 1.0
        variable.assign(values)
    return model


@pytest.fixture
def randomised(rng):
    """Return a function that gives a model's weights values that no initializer would."""
    return functools.partial(randomise, rng=rng)


def build_small_model():
    """Build a convolutional network of one each: bias and none, depthwise, Dense, batch norms."""
    from keras_bn import BatchNormalization

    image = keras.Input((6, 6, 3), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(image)
    x = BatchNormalization(name="conv_bn")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = BatchNormalization(name="depthwise_bn")(x)
    x = keras.layers.ReLU()(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    x = keras.layers.Dense(5, name="dense")(x)
    x = BatchNormalization(name="dense_bn")(x)
    return keras.Model(image, x, name="small")


@pytest.fixture
def small_model(randomised):
    """A convolutional network with one of each: bias and none, depthwise, Dense, batch norms."""
    return randomised(build_small_model())


@pytest.fixture(scope="session")
def small_model_files(tmp_path_factory):
    """A folder with `small_model` as model.keras, and exported as model.onnx: not to be changed."""
    from keras_bn.export import export_onnx

    folder = tmp_path_factory.mktemp("small_model")
    keras.utils.clear_session(free_memory=False)  # as in `_fresh_keras`
    model = randomise(build_small_model(), np.random.default_rng(0))
    model.save(folder / "model.keras")
    export_onnx(model, folder / "model.onnx")
    keras.utils.clear_session(free_memory=False)
    return folder


@pytest.fixture
def files(small_model_files, tmp_path):
    """A folder of the test's own with model.keras and model.onnx, of `small_model`."""
    for name in ("model.keras", "model.onnx"):
        shutil.copy(small_model_files / name, tmp_path)
    return tmp_path
