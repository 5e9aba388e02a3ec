"""What `export_onnx` can be asked for, end to end."""

import re

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from keras_bn import BatchNormalization
from keras_bn.export import ExportError, check_parity, export_onnx
from keras_bn.models import digits_cnn, unet
from tests.tolerances import HALF, assert_close

FLOAT16 = onnx.TensorProto.FLOAT16


def run(path, **inputs):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, inputs)


def dtypes(path):
    return {tensor.data_type for tensor in onnx.load(path).graph.initializer}


def mixed(policy):
    """Build a convolutional network under a mixed-precision policy."""
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, dtype=policy)(image)
    x = keras.layers.ReLU(dtype=policy)(BatchNormalization(dtype=policy)(x))
    x = keras.layers.Dense(5, dtype=policy, name="logits")(keras.layers.Flatten(dtype=policy)(x))
    return keras.Model(image, x)


def test_channels_first_input_and_output(rng, tmp_path):
    model = unet.build()
    image, mask = model.inputs[0].name, model.output_names[0]
    path = tmp_path / "model.onnx"
    report = export_onnx(model, path, inputs_as_nchw=image, outputs_as_nchw=[mask])
    assert report.parity.passed
    graph = onnx.load(path).graph
    assert "Transpose" not in {node.op_type for node in graph.node}
    x = rng.normal(size=(2, 32, 32, model.inputs[0].shape[-1])).astype(np.float32)
    (y,) = run(path, **{image: np.moveaxis(x, -1, 1)})
    assert_close(np.moveaxis(y, 1, -1), model(x))
    assert check_parity(model, path).passed  # the file itself says what is turned


@pytest.mark.parametrize("option", ["inputs_as_nchw", "outputs_as_nchw"])
def test_unknown_name_is_refused(small_model, tmp_path, option):
    with pytest.raises(ExportError, match=f"{option}.*Received: .*'nothing'"):
        export_onnx(small_model, tmp_path / "model.onnx", **{option: ["nothing"]})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["float32", "float16", "keep"])
def test_mixed_float16_model(precision, randomised, rng, tmp_path):
    model, path = randomised(mixed("mixed_float16")), tmp_path / "model.onnx"
    assert export_onnx(model, path, precision=precision).parity.passed
    assert (FLOAT16 in dtypes(path)) == (precision != "float32")
    x = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    assert_close(run(path, image=x)[0], model(x, training=False), 4 * HALF["float16"])


def test_mixed_bfloat16_model_becomes_float32(randomised, rng, tmp_path):
    model, path = randomised(mixed("mixed_bfloat16")), tmp_path / "model.onnx"
    with pytest.raises(ExportError, match="`precision` must be 'float32' or 'float16'"):
        export_onnx(model, path)
    assert export_onnx(model, path, precision="float32").parity.passed
    x = rng.normal(size=(3, 8, 8, 3)).astype(np.float32)
    expected = keras.ops.cast(model(x, training=False), "float32")
    assert_close(run(path, image=x)[0], expected, 4 * HALF["bfloat16"])


def test_float32_model_in_float16(randomised, rng, tmp_path):
    model, path = randomised(digits_cnn.build()), tmp_path / "model.onnx"
    report = export_onnx(model, path, precision="float16")
    assert report.parity.passed
    assert report.precision.float16 > 0
    assert FLOAT16 in dtypes(path)
    assert path.stat().st_size < 0.65 * export_onnx(model, tmp_path / "single.onnx").bytes
    x = rng.random((3, 8, 8, 1)).astype(np.float32)
    (y,) = run(path, image=x)
    assert y.dtype == np.float32
    assert_close(y, model(x, training=False), 4 * HALF["float16"])


def test_activation_that_overflows_float16_stays_in_float32(rng, tmp_path):
    x = keras.Input((4,), name="x")
    large = keras.layers.Dense(4, kernel_initializer=keras.initializers.Constant(3e4), name="large")
    small = keras.layers.Rescaling(1e-5)
    y = keras.layers.Dense(3, activation="tanh")(small(keras.layers.ELU()(large(x))))
    model = keras.Model(x, keras.layers.Dense(3)(y))
    report = export_onnx(model, tmp_path / "model.onnx", precision="float16")
    assert report.parity.passed
    assert any(row.node.startswith("large") for row in report.precision.float32)


@pytest.mark.parametrize("precision", ["half", None, 16])
def test_other_precision_is_refused(small_model, tmp_path, precision):
    with pytest.raises(ExportError, match=re.escape(f"Received: precision={precision!r}")):
        export_onnx(small_model, tmp_path / "model.onnx", precision=precision)


@pytest.mark.parametrize(("units", "files"), [(3, 0), (300, 1)], ids=["all small", "one large"])
def test_weights_in_a_file_of_their_own(units, files, rng, tmp_path):
    x = keras.Input((8,), name="x")
    model = keras.Model(x, keras.layers.Dense(units)(x))
    path = tmp_path / "model.onnx"
    report = export_onnx(model, path, external_data=True)
    assert report.parity.passed
    others = [other for other in tmp_path.iterdir() if other != path]
    assert len(others) == files
    assert report.bytes == sum(p.stat().st_size for p in (path, *others))
    values = rng.normal(size=(2, 8)).astype(np.float32)
    assert_close(run(path, x=values)[0], model(values, training=False))


def test_file_says_what_it_is(small_model, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(small_model, path)
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert metadata["keras_bn.model"] == "small"
    assert metadata["keras_bn.left"] == "0"
    assert '"passed": true' in metadata["keras_bn.parity"]


def test_same_model_gives_the_same_bytes(small_model, tmp_path):
    for name in ("a", "b"):
        export_onnx(small_model, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_subclassed_model_from_its_signature(rng, tmp_path):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense, self.norm = keras.layers.Dense(4), BatchNormalization()

        def call(self, left, right):
            return {"sum": self.norm(self.dense(left + right)), "twice": left * 2.0}

    model, path = Net(), tmp_path / "model.onnx"
    spec = keras.InputSpec(shape=(None, 3), dtype="float32")
    report = export_onnx(model, path, input_signature=[spec, spec])
    assert report.parity.passed
    assert {output.name for output in report.parity.outputs} == {"sum", "twice"}
    x, y = rng.normal(size=(2, 5, 3)).astype(np.float32)
    assert_close(run(path, left=x, right=y)[0], model(x, y)["sum"])
