"""What becomes of Keras layers: traced, simplified, and run by ONNX Runtime."""

import collections

import keras
import numpy as np
import pytest
from keras import layers

from keras_bn.export.stages.constants.evaluate import evaluate_constants
from keras_bn.export.stages.layout.transposes import cancel_transposes
from keras_bn.export.stages.simplify.simplify import simplify
from keras_bn.export.stages.tracing.trace import trace
from tests.export.graphs import operators, run_onnxruntime
from tests.export.stages.simplify.test_simplify_properties import run_optimised
from tests.tolerances import assert_close

COMPUTING_SHAPES = {"Cast", "Gather", "ReduceProd", "Shape", "Tile"}


def sequence(shape, *stack):
    x = inputs = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def squeeze_and_excite():
    x = keras.Input((None, None, 8))
    weights = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(x))
    weights = layers.Conv2D(8, 1, activation="sigmoid")(weights)
    return keras.Model(x, layers.Multiply()([x, weights]))


def check(model, randomised, expected):
    """Assert the operators left, Transposes aside, and that the numbers are Keras's."""
    randomised(model)
    traced = evaluate_constants(trace(model))
    simple = simplify(traced)
    again = simplify(cancel_transposes(simple))
    counted = collections.Counter(operators(again))
    del counted["Transpose"]
    assert counted == collections.Counter(expected.split())
    assert operators(simplify(simple)) == operators(simple)
    rng = np.random.default_rng(0)
    for batch, size in ((1, 7), (3, 8)):
        (value,) = traced.graph.inputs
        shape = [n if isinstance(n, int) else size + i for i, n in enumerate(value.shape)]
        x = rng.normal(size=(batch, *shape[1:])).astype(np.float32)
        expected_values = np.asarray(model(x, training=False))
        for graph in (simple, again):
            assert_close(run_onnxruntime(graph, **{value.name: x})[0], expected_values)
            assert_close(run_optimised(graph, {value.name: x})[0], expected_values)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        pytest.param(
            lambda: sequence(
                (None, 3),
                layers.Conv1D(4, 3, padding="same", activation="relu"),
                layers.MaxPooling1D(2),
                layers.Conv1D(4, 3, padding="causal"),
                layers.AveragePooling1D(2),
                layers.GlobalAveragePooling1D(),
            ),
            "Conv Add Relu MaxPool Conv Add AveragePool ReduceMean",
            id="one dimension",
        ),
        pytest.param(
            lambda: sequence((None, 3), layers.SeparableConv1D(4, 3, padding="same")),
            "Conv Conv Add",
            id="separable, one dimension",
        ),
        pytest.param(
            lambda: sequence((20, 3), layers.Conv1DTranspose(4, 3, strides=2, padding="same")),
            "ConvTranspose Slice Add",
            id="transposed, one dimension",
        ),
        pytest.param(
            lambda: sequence((None, None, 3), layers.Dense(4), layers.ReLU(), layers.Dense(2)),
            "MatMul Add Relu MatMul Add",
            id="dense on four axes",
        ),
        pytest.param(
            lambda: sequence((None, None, 3), layers.UpSampling2D((2, 3))),
            "Resize",
            id="upsampling",
        ),
        pytest.param(
            lambda: sequence((4, 4, 3), layers.Flatten(), layers.Dense(2)),
            "Reshape MatMul Add",
            id="flatten",
        ),
        pytest.param(
            lambda: sequence((None, 4, 3), layers.Reshape((-1, 12)), layers.Dense(2)),
            "Reshape MatMul Add",
            id="reshape",
        ),
        pytest.param(
            squeeze_and_excite,
            "ReduceMean Reshape Conv Sigmoid Reshape Mul",
            id="squeeze, excite",
        ),
        pytest.param(lambda: sequence((8,), layers.RepeatVector(3)), "Reshape Resize", id="repeat"),
    ],
)
def test_layer_leaves_no_trace_of_its_conversion(build, expected, randomised):
    check(build(), randomised, expected)


@pytest.mark.parametrize("strides", [1, 2])
def test_transposed_convolution_of_dynamic_size(strides, randomised):
    model = sequence((None, None, 3), layers.Conv2DTranspose(4, 3, strides=strides, padding="same"))
    traced = evaluate_constants(trace(randomised(model)))
    after = simplify(traced)
    assert not COMPUTING_SHAPES & set(operators(after))
    assert set(operators(after)) <= {"Transpose", "ConvTranspose", "Slice"}


def test_group_normalization_of_dynamic_size_has_constant_targets(randomised):
    model = sequence((None, None, 8), layers.GroupNormalization(4))
    after = simplify(evaluate_constants(trace(randomised(model))))
    assert not COMPUTING_SHAPES & set(operators(after))


def test_zero_padding_before_a_maximum_is_right_under_every_optimisation(randomised):
    """ResNet50V2 starts like this; ONNX Runtime up to 1.31 got it wrong by 6e-2."""
    model = sequence(
        (8, 8, 3),
        layers.Conv2D(4, 3, bias_initializer=keras.initializers.Constant(-9)),
        layers.ZeroPadding2D(1),
        layers.MaxPooling2D(3, 2),
    )
    graph = simplify(cancel_transposes(simplify(evaluate_constants(trace(model)))))
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("f")
    expected = np.asarray(model(x))
    assert (expected[:, 0] == 0).all()
    assert_close(run_optimised(graph, {graph.graph.inputs[0].name: x})[0], expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [("ResNet50V2", 64), ("MobileNetV3Small", 64), ("EfficientNetB0", 64), ("DenseNet121", 64)],
)
def test_application_computes_no_shapes(name, size, randomised):
    build = getattr(keras.applications, name)
    model = randomised(build(weights=None, input_shape=(size, size, 3), classes=5))
    traced = evaluate_constants(trace(model))
    simple = simplify(traced)
    again = simplify(cancel_transposes(simple))
    assert not COMPUTING_SHAPES & set(operators(again))
    x = np.random.default_rng(0).normal(size=(3, size, size, 3)).astype(np.float32)
    inputs = {traced.graph.inputs[0].name: x}
    expected = run_onnxruntime(traced, **inputs)[0]
    assert_close(run_onnxruntime(again, **inputs)[0], expected, 1e-4)
    assert_close(run_optimised(again, inputs)[0], expected, 1e-4)
