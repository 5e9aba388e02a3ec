"""Keras models as traced: one Transpose for each image that comes in or goes out."""

import keras
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from keras import layers

from keras_bn.export.stages.constants.evaluate import evaluate_constants
from keras_bn.export.stages.layout.transposes import cancel_transposes
from keras_bn.export.stages.tracing.trace import trace
from tests.export.graphs import operators
from tests.tolerances import assert_close

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")


def run(model, level, inputs):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    data = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def check(model, rng, transposes):
    before = evaluate_constants(trace(model))
    after = cancel_transposes(before)
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    assert operators(after).count("Transpose") == transposes
    inputs = {
        v.name: rng.normal(size=[d if isinstance(d, int) else 2 for d in v.shape]).astype("f")
        for v in before.graph.inputs
    }
    expected = run(before, LEVELS[0], inputs)
    for level in LEVELS:
        for a, e in zip(run(after, level, inputs), expected, strict=True):
            assert_close(a, e, 1e-4)
    return after


APPLICATIONS = [
    pytest.param("MobileNetV3Small"),
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in """DenseNet121 EfficientNetB0 EfficientNetV2B0 InceptionResNetV2 InceptionV3
        MobileNet MobileNetV2 MobileNetV3Large NASNetMobile ResNet50 ResNet50V2 Xception""".split()
    ),
]


@pytest.mark.parametrize("name", APPLICATIONS)
def test_application_keeps_one_transpose(name, rng):
    size = 96 if "ception" in name else 64
    build = getattr(keras.applications, name)
    check(build(weights=None, input_shape=(size, size, 3), classes=7), rng, 1)


def upsampled(image):
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    y = layers.MaxPooling2D()(x)
    y = layers.Conv2DTranspose(6, 2, strides=2)(y)
    y = layers.BatchNormalization()(layers.Concatenate()([x, y]))
    y = layers.ZeroPadding2D(1)(y)
    return layers.Conv2D(2, 3, activation="softmax")(y)


def excited(image):
    x = layers.Conv2D(8, 3, padding="same")(image)
    scale = layers.GlobalAveragePooling2D()(x)
    scale = layers.Dense(8, activation="hard_sigmoid")(layers.Dense(2, activation="relu")(scale))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(scale)])
    return layers.GlobalMaxPooling2D()(layers.Conv2D(3, 1, activation="hard_swish")(x))


def attended(image):
    x = layers.Conv2D(4, 3, padding="same")(image)
    mean, largest = keras.ops.mean(x, -1, keepdims=True), keras.ops.max(x, -1, keepdims=True)
    scale = layers.Conv2D(1, 3, padding="same", activation="sigmoid")(
        layers.Concatenate()([mean, largest])
    )
    return layers.GlobalMaxPooling2D()(layers.Multiply()([x, scale]))


@pytest.mark.parametrize(
    ("shape", "network", "transposes"),
    [
        pytest.param((8, 8, 3), upsampled, 2, id="U-Net"),
        pytest.param((8, 8, 3), excited, 1, id="squeeze and excite"),
        pytest.param((8, 8, 3), attended, 1, id="spatial attention"),
    ],
)
def test_blocks_keep_one_transpose_an_image(shape, network, transposes, rng, randomised):
    image = keras.Input(shape)
    check(randomised(keras.Model(image, network(image))), rng, transposes)


def test_one_dimensional_convolutions_keep_one(rng, randomised):
    sequence = keras.Input((12, 3))
    x = layers.Conv1D(4, 3, padding="causal")(sequence)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv1D(5, 3, dilation_rate=2)(layers.MaxPooling1D()(x))
    x = layers.GlobalAveragePooling1D()(x)
    check(randomised(keras.Model(sequence, x)), rng, 1)
