"""Real networks in float16, from Keras to ONNX Runtime."""

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn.export.stages.constants.evaluate import evaluate_constants
from keras_bn.export.stages.folding.fold import fold
from keras_bn.export.stages.precision.set_precision import set_precision
from keras_bn.export.stages.tracing.trace import trace
from keras_bn.models import (
    densenet_block,
    digits_cnn,
    preact_resnet,
    temporal_cnn,
    two_inputs,
    unet,
    volumetric_cnn,
)
from tests.export.graphs import run_onnxruntime
from tests.tolerances import HALF, assert_close

NETWORK = 1e-2  # float16's error, grown through some twenty layers of random weights


def converted(model, samples):
    """Convert a model; return its graph, that in float16, and what stays in float32."""
    traced, _ = fold(evaluate_constants(trace(model)))
    result, report = set_precision(traced, "float16", [samples])
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    return traced, result, {row.operator for row in report.float32}


def draw(model, size=2, open_size=8):
    generator = np.random.default_rng(0)
    return {
        x.name: generator.normal(size=(size, *(n or open_size for n in x.shape[1:]))).astype("f")
        for x in model.inputs
    }


@pytest.mark.parametrize(
    ("module", "float32"),
    [
        pytest.param(densenet_block, {"ReduceMean", "Softmax"}, id="densenet_block"),
        pytest.param(digits_cnn, {"Softmax"}, id="digits_cnn"),
        pytest.param(preact_resnet, {"ReduceMean", "Softmax"}, id="preact_resnet"),
        pytest.param(temporal_cnn, {"Softmax"}, id="temporal_cnn"),
        pytest.param(two_inputs, {"ReduceMean", "Softmax"}, id="two_inputs"),
        pytest.param(unet, {"Softmax"}, id="unet"),
        pytest.param(volumetric_cnn, {"Softmax"}, id="volumetric_cnn"),
    ],
)
def test_network_computes_in_float16_but_for_long_sums_and_softmax(module, float32):
    model = module.build()
    samples = draw(model)
    traced, result, stays = converted(model, samples)
    assert stays <= float32 | {"Transpose", "Reshape"}
    expected = run_onnxruntime(traced, **samples)
    for found, value in zip(run_onnxruntime(result, **samples), expected, strict=True):
        assert_close(found, value, NETWORK)


LAYERS = {
    "attention": lambda x: keras.layers.MultiHeadAttention(2, 4)(x, x),
    "gelu": lambda x: keras.ops.gelu(x, approximate=True),
    "group normalisation": keras.layers.GroupNormalization(2, epsilon=1e-6),
    "layer normalisation": keras.layers.LayerNormalization(epsilon=1e-6),
    "log softmax": keras.ops.log_softmax,
    "mish": keras.layers.Activation("mish"),
    "rms normalisation": keras.layers.RMSNormalization(epsilon=1e-6),
    "softplus": keras.ops.softplus,
    "unit normalisation": keras.layers.UnitNormalization(),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_right_on_inputs_that_no_sample_showed(name):
    x = keras.Input((5, 8), name="x")
    y = keras.layers.Dense(4)(LAYERS[name](keras.layers.Dense(8)(x)))
    model = keras.Model(x, y)
    samples = draw(model)
    traced, result, _ = converted(model, samples)
    for factor in (1.0, 1e-4, 3.0, 0.0):
        inputs = {"x": np.float32(factor) * samples["x"]}
        (found,), (expected,) = (run_onnxruntime(g, **inputs) for g in (result, traced))
        assert_close(found, expected, 2 * HALF["float16"])
