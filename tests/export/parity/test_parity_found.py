"""What a review of the check found: each was a false alarm, a fault passed over, or a crash."""

import re

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import helper, numpy_helper

from keras_bn import BatchNormalization
from keras_bn.export import ExportError, check_parity, export_onnx
from keras_bn.export.parity import batch_size
from keras_bn.export.parity.samples.kinds import LARGEST_BATCH
from keras_bn.export.signature import signature_of
from keras_bn.export.stages import conversion
from tests.export.parity.parity_faults import wrong_fold

pytestmark = pytest.mark.onednn


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def edited(path, change):
    """Change the graph of a file in place."""
    proto = onnx.load(path)
    change(proto.graph)
    onnx.save(proto, path)


def scale_weight(graph, name, factor):
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name == name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array((values * factor).astype(values.dtype), name))


def two_outputs(randomised):
    x = keras.Input((4,), name="x")
    heads = [keras.layers.Dense(3, name=name)(x) for name in ("first", "second")]
    return randomised(keras.Model(x, heads))


def test_boolean_outputs_are_compared(path, randomised):
    x = keras.Input((4,), name="x")
    model = randomised(keras.Model(x, keras.layers.Dense(7, name="dense")(x) > 0.0))
    assert export_onnx(model, path).parity.passed
    edited(path, lambda graph: scale_weight(graph, "dense/kernel", -1.0))
    assert not check_parity(model, path, explain=False).passed


def test_function_that_its_first_call_built_has_the_weights_of_now(path, randomised):
    class Traced(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        @tf.function
        def call(self, x):
            return self.dense(x)

    model = Traced()
    model(np.zeros((2, 3), np.float32))
    randomised(model)
    report = export_onnx(model, path).parity
    assert report.passed
    assert max(row.tolerance for row in report.outputs) < 1e-4


@pytest.fixture
def running_over(path, randomised):
    """A model that is infinite on some samples in float32, but not in float64, and its file."""
    x = keras.Input((16,), name="x")
    y = keras.ops.exp(keras.layers.Dense(8, name="dense")(x) * 50.0)
    model = randomised(keras.Model(x, y))
    export_onnx(model, path, check=False)
    return model


def test_model_that_runs_over_raises_no_alarm(running_over, path):
    report = check_parity(running_over, path)
    assert any("where that is not finite" in row.reference for row in report.outputs)
    assert report.passed


def test_what_is_finite_beside_what_runs_over_is_judged(running_over, path):
    edited(path, lambda graph: scale_weight(graph, "dense/bias", 1.1))
    assert not check_parity(running_over, path, explain=False).passed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("onnx_path", None),
        ("seed", True),
        ("ranges", 3),
        ("ranges", [("image", (0, 1))]),
        ("explain", "yes"),
        ("providers", None),
        ("providers", "CPUExecutionProvider"),
    ],
)
def test_option_of_another_type_is_refused_in_one_line(small_model, files, name, value):
    options = {"onnx_path": files / "model.onnx", name: value}
    with pytest.raises(ExportError, match=re.escape(f"{value!r}.")) as caught:
        check_parity(small_model, options.pop("onnx_path"), **options)
    assert f"`{name}` must be" in str(caught.value)


def test_seed_may_be_of_numpy(small_model, files):
    report = check_parity(small_model, files / "model.onnx", seed=np.int64(3), explain=False)
    assert type(report.seed) is int


def test_ragged_samples_are_refused(small_model, files):
    with pytest.raises(ExportError, match="'image' must be numbers of shape"):
        check_parity(small_model, files / "model.onnx", inputs={"image": [[1, 2], [3]]})


@pytest.mark.parametrize("limits", [(0, 300), (-1, 5), "01", {0: 1, 2: 3}, (0, 10**400)])
def test_range_that_the_dtype_cannot_hold_is_refused(path, limits):
    x = keras.Input((2, 2, 3), name="x", dtype="uint8")
    model = keras.Model(x, keras.layers.Rescaling(1 / 255)(x))
    export_onnx(model, path, check=False)
    with pytest.raises(ExportError, match="from 0 to 255 for uint8"):
        check_parity(model, path, ranges={"x": limits})


def test_values_out_of_a_wide_range_stay_finite(path, randomised):
    x = keras.Input((3,), name="x")
    model = keras.Model(x, keras.layers.ReLU()(x))
    export_onnx(model, path, check=False)
    assert check_parity(model, path, ranges={"x": (-3e38, 3e38)}, explain=False).passed


def test_exchanged_outputs_are_named(path, randomised):
    model = two_outputs(randomised)
    export_onnx(model, path, check=False)
    other = {"first": "second", "second": "first"}

    def exchange(graph):
        for node in graph.node:
            node.output[0] = other.get(node.output[0], node.output[0])

    edited(path, exchange)
    fault = check_parity(model, path).fault
    assert fault.stage == "file"
    assert set(fault.layers) == {"first", "second"}
    assert "outputs are exchanged" in fault.detail


def test_fault_behind_the_last_layer_is_named(path, randomised):
    model = two_outputs(randomised)
    export_onnx(model, path, check=False)

    def negate(graph):
        (node,) = (node for node in graph.node if node.output[0] == "second")
        node.output[0] = "before"
        graph.node.append(helper.make_node("Neg", ["before"], ["second"]))

    edited(path, negate)
    fault = check_parity(model, path).fault
    assert (fault.layers, fault.value) == (("second",), "second")


@pytest.mark.parametrize("kind", ["strings", "sequence"])
def test_output_that_is_no_tensor_of_numbers_is_refused(path, randomised, kind):
    model = two_outputs(randomised)
    export_onnx(model, path, check=False)

    def turn(graph):
        (node,) = (node for node in graph.node if node.output[0] == "second")
        node.output[0] = "before"
        if kind == "strings":
            added = helper.make_node("Cast", ["before"], ["second"], to=onnx.TensorProto.STRING)
            graph.output[1].type.tensor_type.elem_type = onnx.TensorProto.STRING
        else:
            added = helper.make_node("SequenceConstruct", ["before"], ["second"])
            kind_of = helper.make_tensor_sequence_value_info("second", 1, None)
            graph.output[1].CopyFrom(kind_of)
        graph.node.append(added)

    edited(path, turn)
    with pytest.raises(ExportError, match="Received: 'second'"):
        check_parity(model, path)


def test_model_that_cannot_run_on_a_part_of_a_batch_is_still_judged(path, randomised):
    class Picky(keras.layers.Layer):
        left = 1000

        def call(self, x):
            Picky.left -= 1
            if Picky.left < 0:
                raise RuntimeError("no more")
            return x * 2.0

    x = keras.Input((3,), name="x")
    model = randomised(keras.Model(x, Picky()(keras.layers.Dense(2)(x))))
    export_onnx(model, path, check=False)
    Picky.left = 1000
    assert check_parity(model, path).notes == ()
    Picky.left = 1000 - Picky.left - 1  # all but the last
    report = check_parity(model, path)
    assert report.passed
    assert "the layers could not be compared" in report.notes[0]


@pytest.mark.parametrize("option", ["inputs_as_nchw", "outputs_as_nchw"])
def test_stages_of_a_file_with_channels_second_are_compared(path, randomised, option):
    x = keras.Input((6, 5, 3), name="x")
    y = keras.layers.Conv2D(4, 3, name="conv", use_bias=False)(x)
    model = randomised(keras.Model(x, BatchNormalization(name="norm")(y)))
    export_onnx(model, path, check=False, **{option: ["x" if "in" in option[:2] else "norm"]})
    report = check_parity(model, path)
    assert report.passed
    assert report.notes == ()
    assert all(stage.passed for stage in report.stages)
    edited(path, lambda graph: scale_weight(graph, "conv/kernel", 1.01))
    fault = check_parity(model, path).fault
    assert (fault.stage, fault.layers) == ("file", ("conv", "norm"))


def test_file_of_another_precision_is_told_apart_from_a_changed_one(small_model, path):
    export_onnx(small_model, path, precision="float16", check=False)
    report = check_parity(small_model, path)
    assert not report.passed
    assert "exported with precision='float16', and is judged by 'keep'" in report.notes[-1]
    assert report.fault.detail.startswith("The file says that it was exported with precision=")
    assert check_parity(small_model, path, explain=False).notes == report.notes
    assert check_parity(small_model, path, precision="float16").passed


def test_batches_are_as_large_as_the_memory_allows(path, randomised, monkeypatch):
    x = keras.Input((4,), name="x")
    model = randomised(keras.Model(x, keras.layers.Dense(8)(x)))
    signature = signature_of(model)
    sample = [np.zeros((1, 4), np.float32)]
    assert batch_size.largest_batch(model, signature, sample) == LARGEST_BATCH
    for rows, size in ((0.5, 1), (1, 1), (6, 5), (7, 7)):
        # A sample is 8 values of 8 bytes.
        monkeypatch.setattr(batch_size, "MEMORY", int(rows * 8 * 8))
        assert batch_size.largest_batch(model, signature, sample) == size


@pytest.mark.parametrize(("activation", "bias"), [("sigmoid", -9.5), ("gelu", -4)])
def test_shut_gates_raise_no_alarm(path, rng, activation, bias):
    x = keras.Input((16,), name="x")
    model = keras.Model(x, keras.layers.Dense(8, activation=activation, name="gate")(x))
    model.get_layer("gate").kernel.assign(rng.normal(size=(16, 8)) * 0.1)
    model.get_layer("gate").bias.assign(np.full(8, bias))
    assert export_onnx(model, path).parity.passed
    edited(path, lambda graph: scale_weight(graph, "gate/bias", 1.01))
    assert not check_parity(model, path, explain=False).passed


class Gate(keras.layers.Layer):
    """A gate of TensorFlow's own inside a layer."""

    def call(self, x):
        return 2 * tf.nn.sigmoid(x)


class Swish(keras.layers.Layer):
    """What TensorFlow calls its input, where it is not the first argument."""

    def call(self, x):
        return tf.nn.silu(features=x)


@pytest.mark.parametrize(
    "gate",
    [
        keras.activations.silu,
        keras.ops.sigmoid,
        keras.ops.silu,
        lambda x: 1 + keras.ops.erf(x / 4),
        Gate(),
        Swish(),
    ],
    ids=["activation", "ops.sigmoid", "ops.silu", "erf", "tf.nn.sigmoid", "tf.nn.silu"],
)
def test_gate_of_any_kind_raises_no_alarm(path, rng, gate):
    x = keras.Input((8,), name="x")
    model = keras.Model(x, gate(keras.layers.Dense(8, name="before")(x)))
    model.get_layer("before").kernel.assign(rng.normal(size=(8, 8)) * 0.3)
    functions = tf.nn.sigmoid, tf.sigmoid, tf.math.sigmoid, tf.nn.silu, tf.nn.gelu
    for bias in (-20, -9):
        model.get_layer("before").bias.assign(np.full(8, bias))
        assert export_onnx(model, path).parity.passed
        edited(path, lambda graph: scale_weight(graph, "before/bias", 1.01))
        assert not check_parity(model, path, explain=False).passed
    assert functions == (tf.nn.sigmoid, tf.sigmoid, tf.math.sigmoid, tf.nn.silu, tf.nn.gelu)


def test_shut_recurrent_cell_raises_no_alarm(path):
    x = keras.Input((6, 8), name="x")
    model = keras.Model(x, keras.layers.LSTM(8, unit_forget_bias=False, name="cell")(x))
    model.get_layer("cell").cell.bias.assign(np.full(32, -8))
    assert export_onnx(model, path).parity.passed


def test_file_does_not_answer_for_a_later_export(small_model, files, monkeypatch):
    monkeypatch.setattr(conversion, "fold", wrong_fold)
    report = check_parity(small_model, files / "model.onnx")
    assert report.passed
    assert [stage.stage for stage in report.stages if not stage.passed] == ["folding"]
    assert report.notes == (
        "the file agrees, but a fresh export by these versions differs: folding",
    )


def test_batch_norm_that_was_moved_through_an_addition_is_named(path, randomised):
    x = keras.Input((8, 8, 4), name="x")
    y = keras.layers.Conv2D(4, 3, name="before")(x)
    inner = keras.layers.Conv2D(4, 3, padding="same", name="inner")(y)
    y = keras.layers.Add()(
        [
            BatchNormalization(name="norm")(inner),
            BatchNormalization(name="skip")(keras.layers.ReLU()(y)),
        ]
    )
    model = randomised(keras.Model(x, keras.layers.Conv2D(4, 3, name="behind")(y)))
    export_onnx(model, path, check=False)
    gamma = model.get_layer("skip").gamma
    gamma.assign(gamma * 1.01)
    assert "skip" in check_parity(model, path).fault.layers


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(keras.layers.Conv1D, (6, 3)), (keras.layers.Conv3D, (3, 4, 5, 2))],
    ids=["Conv1D", "Conv3D"],
)
def test_batch_norm_before_a_transposed_output_is_named(path, randomised, layer, shape):
    x = keras.Input(shape, name="x")
    y = layer(4, 3, name="conv")(x)
    model = randomised(keras.Model(x, BatchNormalization(name="norm")(y)))
    export_onnx(model, path, check=False)
    beta = model.get_layer("norm").beta
    beta.assign(beta + 0.01)
    assert check_parity(model, path).fault.layers == ("conv", "norm")


def test_row_of_a_table_that_no_sample_reads_is_found(path, randomised):
    tokens = keras.Input((4,), name="tokens", dtype="int32")
    y = keras.layers.Embedding(5000, 4, name="table")(tokens)
    model = randomised(keras.Model(tokens, keras.layers.Dense(3)(y)))
    export_onnx(model, path, check=False)

    def negate(graph):
        (tensor,) = (tensor for tensor in graph.initializer if tensor.dims[:1] == [5000])
        values = numpy_helper.to_array(tensor).copy()
        values[4321] *= -1.0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    assert check_parity(model, path).passed
    edited(path, negate)
    report = check_parity(model, path)
    assert all(row.passed for row in report.outputs)
    assert (report.fault.stage, report.fault.layers) == ("file", ("table",))


def test_file_is_not_judged_by_a_stage_in_the_middle(small_model, files, monkeypatch):
    def broken(model, **_):
        raise ExportError("export: no fold today.")

    monkeypatch.setattr(conversion, "fold", broken)
    report = check_parity(small_model, files / "model.onnx")
    assert report.passed
    assert report.notes == ("the stages could not be compared: export: no fold today.",)
