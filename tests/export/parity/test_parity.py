import re
import threading

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn import BatchNormalization
from keras_bn.export import ExportError, check_parity, export_onnx
from keras_bn.export.parity.samples.kinds import DRAWN_BATCHES, EDGE_SAMPLES
from tests.export.graphs import graph
from tests.export.onnx_edits import change_weight

pytestmark = pytest.mark.onednn


@pytest.fixture
def exported(files):
    """The file that `small_model` was exported to."""
    return files / "model.onnx"


@pytest.mark.smoke
def test_honest_export_agrees(small_model, exported):
    report = check_parity(small_model, exported)
    assert report.passed
    assert {row.reference for row in report.outputs} == {"float64"}
    assert [row.case for row in report.outputs] == ["drawn", "constant", "out of range"]
    assert report.samples == sum(DRAWN_BATCHES) + 2 * EDGE_SAMPLES
    assert 0.0 < report.outputs[0].onnx.max < report.outputs[0].tolerance


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["conv/kernel", "conv/bias", "depthwise/kernel", "dense/bias"])
def test_weight_off_by_a_thousandth_is_found(small_model, exported, name):
    def change(array):
        array.reshape(-1)[0] += 1e-3 * np.abs(array).max()
        return array

    change_weight(exported, name, change)
    assert not check_parity(small_model, exported).passed


def test_wrong_epsilon_is_found(small_model, exported):
    small_model.get_layer("conv_bn").epsilon = 1e-2
    assert not check_parity(small_model, exported).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_output_that_is_not_finite_is_found(small_model, exported, value):
    change_weight(exported, "dense/bias", lambda array: np.full_like(array, value))
    report = check_parity(small_model, exported)
    assert not report.passed
    assert report.outputs[0].onnx.max == np.inf


def test_model_without_a_finite_output_is_refused(small_model, tmp_path):
    small_model.get_layer("dense_bn").beta.assign(np.full(5, np.nan))
    with pytest.raises(ExportError, match="values, none finite"):
        export_onnx(small_model, tmp_path / "model.onnx")


def test_overflow_of_keras_does_not_excuse_another_file(tmp_path):
    """Keras overflows where float64 does not: the allowance must not become infinite."""
    x = keras.Input((2,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, use_bias=False, name="dense")(x))
    model.layers[1].kernel.assign([[3e38, 1.0], [3e38, 1.0]])
    path = tmp_path / "model.onnx"
    samples = np.ones((4, 2), np.float32)
    report = export_onnx(model, path, inputs=samples).parity
    assert report.passed
    assert "not finite" in report.outputs[0].reference
    change_weight(path, "dense/kernel", lambda array: array * np.array([1.0, 1.01], array.dtype))
    assert not check_parity(model, path, inputs=samples).passed


def test_small_channel_does_not_hide_behind_a_large_one(tmp_path, rng):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.layers.Dense(2, name="dense")(x))
    model.layers[1].kernel.assign(rng.normal(size=(3, 2)) * [2e6, 1.0])
    path = tmp_path / "model.onnx"
    assert export_onnx(model, path).parity.passed
    change_weight(path, "dense/kernel", lambda array: array * np.array([1.0, -1.0], array.dtype))
    report = check_parity(model, path)
    assert any(row.bad_channel == 1 for row in report.outputs)
    assert not report.passed
    assert "channel 1 is wrong" in str(report)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("seed", range(3))
def test_rare_class_raises_no_alarm(tmp_path, activation, seed):
    keras.utils.set_random_seed(seed)
    x = keras.Input((8, 8, 3), name="x")
    y = keras.layers.ReLU()(BatchNormalization()(keras.layers.Conv2D(8, 3)(x)))
    y = keras.layers.GlobalAveragePooling2D()(y)
    model = keras.Model(x, keras.layers.Dense(4, activation=activation)(y))
    model.layers[-1].bias.assign([0.0, -8.0, -12.0, 1.0])
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


def rename(path):
    """Give every input and output of a file another name."""
    proto = onnx.load(path)
    for i, value in enumerate(proto.graph.input):
        nodes = [onnx.helper.make_node("Identity", [f"x{i}"], [value.name])]
        value.name = f"x{i}"
        proto.graph.node.extend([*nodes, *(proto.graph.node.pop(0) for _ in proto.graph.node[:])])
    for i, value in enumerate(proto.graph.output):
        proto.graph.node.append(onnx.helper.make_node("Identity", [value.name], [f"y{i}"]))
        value.name = f"y{i}"
    onnx.save(proto, path)


def test_inputs_and_outputs_of_other_names_stand_in_order(tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    sides = [
        keras.layers.Dense(3, name="first")(left),
        keras.layers.Dense(3, name="second")(right),
    ]
    model = keras.Model([left, right], sides)
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    rename(path)
    report = check_parity(model, path)
    assert report.passed
    assert report.notes == (
        "the inputs ['left', 'right'] are called ['x0', 'x1'] in the file",
        "the outputs ['first', 'second'] are called ['y0', 'y1'] in the file",
    )
    change_weight(path, "second/kernel", lambda kernel: kernel + 1)
    report = check_parity(model, path)
    assert {row.name for row in report.outputs if not row.passed} == {"second"}
    assert report.fault.layers == ("second",)


def test_output_of_another_dtype_is_noted(small_model, exported):
    proto = onnx.load(exported)
    (value,) = proto.graph.output
    cast = onnx.helper.make_node("Cast", [value.name], ["wide"], to=onnx.TensorProto.DOUBLE)
    proto.graph.node.append(cast)
    value.name, value.type.tensor_type.elem_type = "wide", onnx.TensorProto.DOUBLE
    onnx.save(proto, exported)
    notes = check_parity(small_model, exported).notes
    assert "output 'dense_bn' is float32 in the model and float64 in the file" in notes


@pytest.mark.parametrize("more", [True, False])
def test_file_with_more_or_fewer_outputs_is_refused(small_model, exported, more):
    proto = onnx.load(exported)
    if more:
        proto.graph.output.add().name = "conv"
    names = [value.name for value in proto.graph.output]
    onnx.save(proto, exported)
    model = small_model if more else keras.Model(small_model.input, [small_model.output] * 2)
    with pytest.raises(ExportError, match=re.escape(f"Received: {names}")):
        check_parity(model, exported)


@pytest.mark.filterwarnings("ignore:In the future `np.object`:FutureWarning")  # tf2onnx, inside
def test_files_that_keras_exports_are_checked(small_model, tmp_path):
    path = tmp_path / "stock.onnx"
    small_model(np.zeros((1, 6, 6, 3), np.float32))
    small_model.export(path, format="onnx", verbose=False)
    report = check_parity(small_model, path)
    assert report.passed
    assert len(report.layers) > 3
    small_model.get_layer("depthwise_bn").epsilon = 1e-2
    assert "depthwise_bn" in check_parity(small_model, path).fault.layers


def test_adapted_normalization_is_part_of_the_truth(tmp_path, rng):
    normalization = keras.layers.Normalization(name="standardise")
    normalization.adapt(rng.normal(50.0, 9.0, (100, 3)))
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.layers.Dense(4, name="dense")(normalization(x)))
    path = tmp_path / "model.onnx"
    report = export_onnx(model, path).parity
    assert report.outputs[0].reference == "float64"
    assert report.outputs[0].tolerance < 1e-4
    change_weight(path, "dense/kernel", np.zeros_like)
    assert not check_parity(model, path).passed


def test_layer_that_its_config_does_not_describe_has_a_truth(tmp_path):
    @keras.saving.register_keras_serializable("test")
    class Forgetful(keras.layers.Layer):
        def __init__(self, factor=1.0, **kwargs):
            super().__init__(**kwargs)
            self.factor = factor

        def call(self, x):
            return x * self.factor

        def get_config(self):
            return {"name": self.name, "trainable": True, "dtype": "float32"}

    x = keras.Input((3,), name="x")
    model = keras.Model(x, Forgetful(5.0)(x))
    report = export_onnx(model, tmp_path / "model.onnx").parity
    assert report.passed
    assert report.outputs[0].reference == "float64"
    assert report.outputs[0].tolerance < 1e-4


def test_layers_inside_layers_are_part_of_the_truth(tmp_path, rng):
    x = keras.Input((2, 6, 6, 3), name="x")
    y = keras.layers.TimeDistributed(keras.layers.Conv2D(4, 3))(x)
    report = export_onnx(keras.Model(x, y), tmp_path / "model.onnx").parity
    assert report.outputs[0].reference == "float64"
    assert report.outputs[0].keras.max > 0.0


@pytest.mark.parametrize("size", [1, 4])
def test_fixed_batch_size_is_respected(tmp_path, rng, size):
    x = keras.Input(batch_shape=(size, 8), name="x")
    model = keras.Model(x, keras.layers.Dense(3)(x))
    path = tmp_path / "model.onnx"
    assert export_onnx(model, path).parity.samples == 5 * size
    assert check_parity(model, path, inputs=rng.normal(size=(6, 8))).samples in (6, 8)


def test_scalar_output_is_compared(tmp_path):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.ops.mean(keras.layers.Dense(3)(x)))
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


def test_parity_leaves_the_state_of_the_model_alone(tmp_path):
    class Counting(keras.layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

        def call(self, x):
            self.calls.assign_add(1.0)
            return x * 2.0

    x = keras.Input((3,), name="x")
    layer = Counting()
    model = keras.Model(x, layer(x))
    before = float(layer.calls)
    export_onnx(model, tmp_path / "model.onnx")
    assert float(layer.calls) == before


def test_model_that_cannot_run_on_drawn_samples_says_so(tmp_path):
    x = keras.Input((None, None, 3), name="x")
    model = keras.Model(x, keras.layers.Reshape((5, 7, 3))(x))  # no square has 35 pixels
    with pytest.raises(ExportError, match="Give samples of a suitable shape"):
        export_onnx(model, tmp_path / "model.onnx")


@pytest.mark.parametrize("broken", ["Keras", "both"])
def test_error_of_keras_comes_first_and_leaves_no_thread(small_model, exported, broken):
    def fail(*_, **__):
        raise RuntimeError("no such thing")

    small_model.get_layer("dense").call = fail
    if broken == "both":
        other = graph("g (float[1] x, float[1] y) => (float[1] z) { z = Add(x, y) }")
        ir.save(other, exported)
    before = threading.active_count()
    with pytest.raises(ExportError, match="no such thing"):
        check_parity(small_model, exported)
    assert threading.active_count() == before


@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_samples_that_are_not_finite_are_refused(small_model, exported, value):
    with pytest.raises(ExportError, match="Received: 216 values that are not"):
        check_parity(small_model, exported, inputs=np.full((2, 6, 6, 3), value))


def test_given_samples_are_compared(small_model, exported, rng):
    x = rng.normal(size=(70, 6, 6, 3))
    assert check_parity(small_model, exported, inputs=x).samples == 70
    assert check_parity(small_model, exported, inputs={"image": x, "label": x}).samples == 70


@pytest.mark.parametrize(
    ("inputs", "received"),
    [
        ({"picture": np.zeros((1, 6, 6, 3))}, "Received: arrays ['picture']"),
        (np.zeros((1, 5, 5, 3)), "float64 of shape (1, 5, 5, 3)"),
        (np.zeros((0, 6, 6, 3)), "float64 of shape (0, 6, 6, 3)"),
        (np.zeros(()), "float64 of shape ()"),
        (np.full((1, 6, 6, 3), "a"), "<U1 of shape (1, 6, 6, 3)"),
    ],
)
def test_samples_that_do_not_fit_are_refused(small_model, exported, inputs, received):
    with pytest.raises(ExportError, match=re.escape(received)):
        check_parity(small_model, exported, inputs=inputs)


def test_array_without_a_name_is_not_enough_for_two_inputs(tmp_path):
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    model = keras.Model([x, y], keras.layers.Add()([x, y]))
    export_onnx(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"one array without a name, as in an \.npy file"):
        check_parity(model, tmp_path / "model.onnx", inputs={"": np.zeros((2, 3))})


def test_inputs_of_different_length_are_refused(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], keras.layers.Add()([a, b]))
    export_onnx(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=re.escape("Received: [2, 3] for ['a', 'b']")):
        check_parity(
            model, tmp_path / "model.onnx", inputs={"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}
        )


def test_file_of_another_model_is_refused(small_model, tmp_path):
    other = graph("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    ir.save(other, tmp_path / "other.onnx")
    with pytest.raises(ExportError, match="must accept the inputs of the Keras model"):
        check_parity(small_model, tmp_path / "other.onnx")


def test_operator_that_no_provider_has_is_refused_with_advice(tmp_path):
    image = keras.Input((4, 4, 1), dtype="float64")
    model = keras.Model(image, keras.layers.Conv2D(1, 2, dtype="float64")(image))
    with pytest.raises(ExportError, match=r"implementation for Conv.*build the model in float32"):
        export_onnx(model, tmp_path / "model.onnx")


def test_file_that_is_no_model_is_refused(small_model, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a protobuf")
    with pytest.raises(ExportError, match="must be a whole and valid ONNX model"):
        check_parity(small_model, tmp_path / "model.onnx")


def test_integer_inputs_and_unknown_dimensions_are_drawn(tmp_path):
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(5, 4)(tokens)
    model = keras.Model(tokens, BatchNormalization()(keras.layers.Dense(3)(x)))
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


def test_layer_without_a_config_has_a_truth(tmp_path):
    @keras.saving.register_keras_serializable("test")
    class Stubborn(keras.layers.Layer):
        def get_config(self):
            raise NotImplementedError("no config")

        def call(self, x):
            return x * 2.0

    x = keras.Input((3,), name="x")
    model = keras.Model(x, Stubborn()(x))
    report = export_onnx(model, tmp_path / "model.onnx").parity
    assert report.passed
    assert report.outputs[0].reference == "float64"
