"""A stage of the export that goes wrong is named, and so is the layer."""

import dataclasses
import operator

import keras
import numpy as np
import onnx
import pytest

from keras_bn import BatchNormalization
from keras_bn.export import ParityError, check_parity, export_onnx
from keras_bn.export.parity import file_runs
from keras_bn.export.parity.explaining import explain, localise
from keras_bn.export.runtime.session import LEVELS, OnnxRuntime
from keras_bn.export.stages import conversion
from keras_bn.export.stages.folding.rules import linear
from tests.export.onnx_edits import change_weight, scale_first
from tests.export.parity.parity_faults import in_training, wrong_fold

pytestmark = pytest.mark.onednn


def fault_of(model, path, **options):
    """Export with something wrong in the export itself; return the fault."""
    with pytest.raises(ParityError) as caught:
        export_onnx(model, path, **options)
    assert not caught.value.report.passed
    assert not path.exists()
    return caught.value.report.fault


def test_agreeing_file_has_stages_layers_and_no_fault(small_model, files):
    report = check_parity(small_model, files / "model.onnx", explain=True)
    assert report.passed
    assert report.fault is None
    stages = [stage.stage for stage in report.stages]
    assert stages == ["tracing", "layout", "folding", "file", "optimiser"]
    assert all(stage.passed for stage in report.stages)
    assert {row.status for row in report.layers} == {"agrees"}
    held = {name for row in report.layers for name in (*row.folded, row.layer)}
    assert {"conv", "conv_bn", "depthwise", "depthwise_bn", "dense", "dense_bn"} <= held


def test_layers_are_looked_at_only_if_asked_or_needed(small_model, files):
    path = files / "model.onnx"
    assert check_parity(small_model, path).layers
    assert check_parity(small_model, path, explain=None).layers == ()
    small_model.get_layer("conv_bn").epsilon = 1e-2
    assert check_parity(small_model, path, explain=False).fault is None
    assert check_parity(small_model, path, explain=None).fault.stage == "file"


def test_answer_that_depends_on_the_batch_size_is_called_so(tmp_path):
    # Keras 3.15.1 takes a tensor of one sample and one column for a bias, and of two samples not.
    first, second = keras.Input((3, 3), name="first"), keras.Input((3, 1), name="second")
    model = keras.Model([first, second], first + second)
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=(1, *shape)).astype(np.float32) for shape in ((3, 3), (3, 1)))
    alone, beside = model([a, b]), model([np.concatenate([x, x]) for x in (a, b)])
    if np.allclose(alone[0], beside[0]):
        pytest.skip("this version of Keras adds them alike")
    with pytest.raises(ParityError, match="Keras itself answers otherwise") as caught:
        export_onnx(model, tmp_path / "model.onnx")
    assert caught.value.report.fault.stage == "keras"
    assert "`input_signature` with a batch size" in str(caught.value)
    assert "report this" not in str(caught.value)
    spec = [
        keras.InputSpec(shape=(2, *shape), dtype="float32", name=name)
        for shape, name in (((3, 3), "first"), ((3, 1), "second"))
    ]
    assert export_onnx(model, tmp_path / "model.onnx", input_signature=[spec]).parity.passed


def test_fold_across_zero_padding_is_found(tmp_path, randomised, monkeypatch):
    image = keras.Input((8, 8, 3), name="image")
    x = keras.layers.ReLU(name="relu")(keras.layers.Conv2D(4, 3, name="first")(image))
    x = BatchNormalization(name="bn")(x)
    x = keras.layers.ReLU(name="relu2")(keras.layers.Conv2D(4, 3, padding="same", name="conv")(x))
    model = randomised(keras.Model(image, keras.layers.Conv2D(2, 3, name="last")(x)))
    monkeypatch.setattr(linear, "_pads", lambda *_: False)
    fault = fault_of(model, tmp_path / "model.onnx")
    assert fault.stage == "folding"
    assert "conv" in fault.layers
    assert set(fault.layers) <= {"bn", "conv"}


def test_wrong_folded_weight_is_found(small_model, tmp_path, monkeypatch):
    monkeypatch.setattr(conversion, "fold", wrong_fold)
    fault = fault_of(small_model, tmp_path / "model.onnx")
    assert fault.stage == "folding"
    assert fault.layers == ("depthwise", "depthwise_bn")
    assert "Folding is at fault" in fault.detail


def test_transposed_square_input_is_found(small_model, tmp_path, monkeypatch):
    cancel = conversion.cancel_transposes

    def broken(graph, **options):
        graph = cancel(graph, **options)
        turn = next(node for node in graph.graph if node.op_type == "Transpose")
        turn.attributes["perm"] = type(turn.attributes["perm"])(
            "perm", turn.attributes["perm"].type, [0, 3, 2, 1]
        )
        return graph

    monkeypatch.setattr(conversion, "cancel_transposes", broken)
    fault = fault_of(small_model, tmp_path / "model.onnx")
    assert fault.stage == "layout"
    assert fault.layers[0] == "conv"


def test_layer_traced_in_training_mode_is_found(small_model, tmp_path, monkeypatch):
    trace = conversion.trace

    def broken(model, **options):
        with in_training(model.get_layer("depthwise_bn")):
            return trace(model, **options)

    monkeypatch.setattr(conversion, "trace", broken)
    fault = fault_of(small_model, tmp_path / "model.onnx")
    assert fault.stage == "tracing"
    assert fault.layers == ("depthwise_bn",)


def test_float16_overflow_is_found(tmp_path, monkeypatch):
    """The outputs are right on a CPU, where ONNX Runtime computes in float32; not elsewhere."""
    x = keras.Input((64,), name="x")
    y = keras.layers.Dense(3, name="large", use_bias=False)(x)
    y = keras.layers.Dense(3, name="small", use_bias=False)(keras.layers.ReLU(name="relu")(y))
    model = keras.Model(x, y)
    model.get_layer("large").kernel.assign(np.full((64, 3), 3e4))
    model.get_layer("small").kernel.assign(np.full((3, 3), 1e-4))
    place = conversion.set_precision

    def careless(graph, precision, samples):
        return place(graph, precision, [{"x": batch["x"] * 1e-4} for batch in samples])

    monkeypatch.setattr(conversion, "set_precision", careless)
    fault = fault_of(model, tmp_path / "model.onnx", precision="float16")
    assert fault.stage == "precision"
    assert fault.layers == ("large",)


def test_optimiser_that_changes_the_result_is_found(small_model, files, monkeypatch):
    class Broken(OnnxRuntime):
        def __init__(self, source, level, *args, **options):
            super().__init__(source, level, *args, **options)
            self._optimised = level == LEVELS[1]

        def runner(self, inputs, outputs):
            run = super().runner(inputs, outputs)
            return lambda batch: [array + self._optimised for array in run(batch)]

    monkeypatch.setattr(file_runs, "OnnxRuntime", Broken)
    report = check_parity(small_model, files / "model.onnx")
    assert [stage.passed for stage in report.stages] == [True, True, True, True, False]
    assert report.fault.stage == "optimiser"
    assert report.outputs[0].difference > 0.01
    assert "ONNX Runtime's optimisations are at fault" in str(report)


def test_fault_that_no_output_shows_is_found_by_its_layer(files, small_model):
    """Nothing that the first of the depthwise channels holds gets past its ReLU."""
    small_model.get_layer("depthwise_bn").beta.assign(np.full(8, -1e3))
    path = files / "model.onnx"
    export_onnx(small_model, path)
    change_weight(path, "conv/kernel", scale_first(1.001))
    report = check_parity(small_model, path, explain=True)
    assert all(row.passed for row in report.outputs)
    assert not report.passed
    assert report.fault.layers == ("conv", "conv_bn")


def test_file_of_another_version_is_judged_by_its_outputs(files, small_model):
    """Another version may have moved a scale elsewhere; only outputs can tell that it is right."""
    path = files / "model.onnx"
    for name in ("conv/kernel", "conv/bias"):
        change_weight(path, name, lambda array: array * np.float32(2))
    change_weight(path, "depthwise/kernel", lambda array: array / np.float32(2))
    proto = onnx.load(path)
    assert not check_parity(small_model, path, explain=True).passed
    for entry in proto.metadata_props:
        if entry.key == "keras_bn.version":
            entry.value = "0.0.1"
    onnx.save(proto, path)
    report = check_parity(small_model, path, explain=True)
    assert report.passed
    assert "rescaled" in {row.status for row in report.layers}


def test_portions_give_the_same_as_the_whole(small_model, files, monkeypatch):
    whole = check_parity(small_model, files / "model.onnx", explain=True).layers
    monkeypatch.setattr(localise, "PORTION", 1)
    monkeypatch.setattr(localise, "LARGEST_PAIR", 2**30)
    assert check_parity(small_model, files / "model.onnx", explain=True).layers == whole


def test_large_model_is_looked_at_on_one_sample(small_model, files, monkeypatch):
    monkeypatch.setattr(localise, "LARGEST_PAIR", 1)
    report = check_parity(small_model, files / "model.onnx", explain=True)
    assert report.passed
    assert len(report.layers) > 5


@pytest.mark.parametrize("same_graph", [True, False])
def test_file_without_names_of_layers_is_explained_by_its_graph(small_model, files, same_graph):
    path = files / "model.onnx"
    change_weight(path, "dense/bias", np.ones_like)
    proto = onnx.load(path)
    for number, node in enumerate(proto.graph.node):
        node.name = f"n{number}"
    if not same_graph:
        proto.graph.node[-1].output[0] = "last"
        proto.graph.node.append(onnx.helper.make_node("Identity", ["last"], ["dense_bn"]))
    onnx.save(proto, path)
    fault = check_parity(small_model, path).fault
    assert fault.stage == "file"
    assert fault.layers == (("dense", "dense_bn") if same_graph else ())
    assert ("no layer could be named" in fault.detail) is not same_graph


def test_report_is_plain_json(small_model, files):
    small_model.get_layer("conv_bn").epsilon = 1e-2
    report = check_parity(small_model, files / "model.onnx")
    data = report.to_dict()
    assert data["passed"] is False
    assert data["fault"]["layers"] == ["conv", "conv_bn"]
    assert data["layers"][0] == {
        **dataclasses.asdict(report.layers[0]),
        "folded": list(report.layers[0].folded),
    }


def test_layers_are_found_under_the_scopes_of_tf2onnx(small_model, files):
    """As in `small_1/conv_1/convolution`, where this package writes `conv`."""
    path = files / "model.onnx"
    proto = onnx.load(path)
    for number, node in enumerate(proto.graph.node):
        node.name = f"small_1/{node.name.partition('/')[0]}_1/op_{number}"
    onnx.save(proto, path)
    small_model.get_layer("depthwise_bn").epsilon = 1e-2
    fault = check_parity(small_model, path).fault
    assert fault.layers == ("depthwise", "depthwise_bn")


def test_quantised_layer_is_named(tmp_path):
    x = keras.Input((8,), name="x")
    y = keras.layers.Dense(3, name="b")(keras.layers.Dense(4, name="a")(x))
    model, path = keras.Model(x, y), tmp_path / "model.onnx"
    for layer in model.layers[1:]:
        layer.quantize("int8")
    assert export_onnx(model, path).parity.passed
    change_weight(path, "a/kernel", operator.neg)
    assert check_parity(model, path).fault.layers == ("a",)


def strip(path):
    """Make a file that of another tool."""
    proto = onnx.load(path)
    del proto.metadata_props[:]
    onnx.save(proto, path)


@pytest.mark.parametrize("change", [None, strip], ids=["own", "of another tool"])
def test_state_of_a_masked_layer_is_not_taken_for_its_output(tmp_path, randomised, change):
    path = tmp_path / "model.onnx"
    words = keras.Input((5,), dtype="int32", name="words")
    y = keras.layers.Embedding(9, 4, mask_zero=True)(words)
    y = keras.layers.LSTM(3, name="lstm")(y)
    model = randomised(keras.Model(words, keras.layers.Dense(2, name="dense")(y)))
    export_onnx(model, path)
    if change is not None:
        change(path)
    report = check_parity(model, path, explain=True)
    assert report.passed
    assert {row.status for row in report.layers} == {"agrees"}
    assert {"lstm", "dense"} <= {row.layer for row in report.layers}


def test_fault_that_is_a_factor_is_not_called_rescaled(files, small_model):
    path = files / "model.onnx"
    strip(path)
    change_weight(path, "conv/kernel", lambda kernel: kernel * np.float32(1.5))
    report = check_parity(small_model, path)
    first = next(row for row in report.layers if row.value == report.fault.value)
    assert (first.layer, first.status) == ("conv_bn", "differs")


def test_weights_in_a_file_of_their_own(small_model, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(small_model, path, external_data=True)
    before = sorted(tmp_path.iterdir())
    assert check_parity(small_model, path).passed
    small_model.get_layer("conv_bn").epsilon = 1e-2
    assert check_parity(small_model, path).fault.layers == ("conv", "conv_bn")
    assert sorted(tmp_path.iterdir()) == before


def test_channels_second_at_the_ends(small_model, tmp_path):
    path = tmp_path / "model.onnx"
    report = export_onnx(small_model, path, inputs_as_nchw=["image"])
    assert report.parity.passed
    report = check_parity(small_model, path)
    assert report.passed
    assert report.layers


def test_model_without_float64_is_judged_by_its_outputs(tmp_path):
    class Narrow(keras.layers.Layer):
        def call(self, x):
            return keras.ops.cast(x, "float32")

    x = keras.Input((3,), name="x")
    model = keras.Model(x, Narrow()(keras.layers.Dense(2, name="dense")(x)))
    path = tmp_path / "model.onnx"
    export_onnx(model, path)
    report = check_parity(model, path)
    assert report.passed
    assert "still gives float32" in report.outputs[0].reference
    assert any("the layers could not be compared" in note for note in report.notes)


def test_large_file_is_judged_as_a_small_one(files, small_model, monkeypatch):
    """Its weights lie apart while its layers are compared; what it says of itself counts still."""
    monkeypatch.setattr(explain, "HEAVY", 0)
    path = files / "model.onnx"
    export_onnx(small_model, path, inputs_as_nchw=["image"])
    report = check_parity(small_model, path)
    assert report.passed
    assert report.layers
    assert report.notes == ()
    small_model.get_layer("depthwise_bn").beta.assign(np.full(8, -1e3))
    export_onnx(small_model, path)
    change_weight(path, "conv/kernel", scale_first(1.001))
    report = check_parity(small_model, path)
    assert all(row.passed for row in report.outputs)
    assert report.fault.layers == ("conv", "conv_bn")
