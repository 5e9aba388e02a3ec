import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from keras_bn.export import FoldReport, Reason, fold_batch_norms
from tests.export.foreign_graphs import TENSORFLOW, TORCH, conv_bn, foreign, outputs, serialised
from tests.tolerances import FLOAT64, assert_close

NEWEST = onnx.defs.onnx_opset_version()
KIND = onnx.ModelProto


def operators(proto):
    return [node.op_type for node in proto.graph.node]


def assert_same_function(proto, folded, **inputs):
    for actual, truth in zip(outputs(folded, **inputs), outputs(proto, **inputs), strict=True):
        assert_close(actual, truth, 1e-6)


def assert_whole(proto, reason, operators, detail=""):
    before = serialised(proto)
    result, report = fold_batch_norms(proto)
    assert serialised(result) == serialised(proto) == before
    assert report.folds == ()
    assert [row.operator for row in report.refusals] == operators
    assert {row.reason for row in report.refusals} == {reason}
    assert all(detail in row.detail for row in report.refusals)


@pytest.fixture
def x(rng):
    return rng.normal(size=(2, 3, 8, 8)).astype(np.float32)


def test_each_kind_is_given_back(tmp_path, x):
    proto = conv_bn()
    onnx.save(proto, tmp_path / "model.onnx")
    for model in (
        proto,
        ir.from_proto(proto),
        tmp_path / "model.onnx",
        str(tmp_path / "model.onnx"),
    ):
        folded, report = fold_batch_norms(model)
        assert isinstance(folded, KIND if model is proto else ir.Model)
        result = folded if model is proto else ir.to_proto(folded)
        assert isinstance(report, FoldReport)
        assert operators(result) == ["Conv"]
        assert_same_function(proto, result, x=x)


def test_input_stays_unchanged():
    proto = conv_bn()
    model = ir.from_proto(proto)
    before = serialised(proto), serialised(ir.to_proto(model))
    fold_batch_norms(proto)
    fold_batch_norms(model)
    assert (serialised(proto), serialised(ir.to_proto(model))) == before


@pytest.mark.parametrize("model", [None, b"bytes", 3])
def test_other_kinds_are_refused(model):
    with pytest.raises(TypeError, match=f"Received: {type(model).__name__}"):
        fold_batch_norms(model)


def test_model_in_which_nothing_folds_is_given_back():
    text = """g (float[2,3] x) => (float[2,3] y) {
        two = Constant<value_float = 2.0>() r = Relu(x) s = Relu(r) t = Mul(s, two) y = Relu(t)
    }"""
    proto = foreign(text)
    model = ir.from_proto(proto)
    before = serialised(proto), serialised(ir.to_proto(model))
    for given in (proto, model):
        result, report = fold_batch_norms(given)
        assert result is given
        assert report.folds == ()
        assert [row.node for row in report.refusals] == ["t"]
    assert (serialised(proto), serialised(ir.to_proto(model))) == before


@pytest.mark.parametrize("opset", range(9, NEWEST + 1))
@pytest.mark.parametrize("text", [TORCH, TENSORFLOW], ids=["torch", "tf2onnx"])
def test_networks_of_others_fold_at_every_opset(text, opset, x):
    proto = foreign(text, opset, ir_version=4 if opset < 15 else 10)
    folded, report = fold_batch_norms(proto)
    assert report.refusals == ()
    assert not {"Add", "BatchNormalization", "Constant", "Identity", "Mul"} & set(operators(folded))
    assert_same_function(proto, folded, x=x if text is TORCH else x.transpose(0, 2, 3, 1))
    onnx.checker.check_model(folded, full_check=True)


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_ALL"])
def test_onnxruntime_agrees(level, x):
    proto = foreign(TORCH)
    folded, _ = fold_batch_norms(proto)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(
        folded.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    assert_close(session.run(None, {"x": x})[0], outputs(proto, x=x)[0])


def test_everything_around_the_graph_stays():
    proto = conv_bn(imports=', "mine" : 3')
    proto.doc_string, proto.producer_name, proto.domain = "a model", "somebody", "org.example"
    proto.model_version, proto.graph.doc_string = 7, "a graph"
    onnx.helper.set_model_props(proto, {"b": "2", "a": "1"})
    proto.graph.input[0].doc_string = "images"
    proto.graph.node[0].doc_string = "a convolution"
    folded, _ = fold_batch_norms(proto)
    for field in ("doc_string", "producer_name", "domain", "model_version", "ir_version"):
        assert getattr(folded, field) == getattr(proto, field)
    assert {p.key: p.value for p in folded.metadata_props} == {"a": "1", "b": "2"}
    assert sorted((i.domain, i.version) for i in folded.opset_import) == [("", 13), ("mine", 3)]
    assert folded.graph.doc_string == "a graph"
    assert list(folded.graph.input) == list(proto.graph.input)
    assert list(folded.graph.output) == list(proto.graph.output)
    assert folded.graph.node[0].doc_string == "a convolution"
    assert len(folded.graph.value_info) == 0
    assert folded.graph.node[0].name == ""


def test_shapes_that_were_there_stay_and_others_do_not_come():
    text = """g (float[N,3,8,8] x) => (float[N,a,b,c] y) {
        c = Conv(x, w) n = BatchNormalization(c, g, b, m, v) r = Relu(n) s = Neg(r) y = Relu(s)
    }"""
    proto = foreign(text)
    proto.graph.value_info.append(onnx.helper.make_tensor_value_info("r", 1, ["N", 4, "p", 6]))
    folded, report = fold_batch_norms(proto)
    assert len(report.folds) == 1
    assert list(folded.graph.value_info) == list(proto.graph.value_info)
    assert list(folded.graph.output) == list(proto.graph.output)


def test_standard_domain_by_its_other_name():
    proto = conv_bn()
    proto.opset_import[0].domain = "ai.onnx"
    folded, report = fold_batch_norms(proto)
    assert len(report.folds) == 1
    assert [(i.domain, i.version) for i in folded.opset_import] == [("ai.onnx", 13)]


def test_weights_among_the_inputs_before_version_4_of_the_ir(x):
    proto = conv_bn(opset=9, ir_version=3, weights_as_inputs=True)
    onnx.checker.check_model(proto, full_check=True)
    folded, report = fold_batch_norms(proto)
    assert len(report.folds) == 1
    onnx.checker.check_model(folded, full_check=True)
    names = [value.name for value in folded.graph.input]
    assert names[0] == "x"
    assert set(names[1:]) == {tensor.name for tensor in folded.graph.initializer}
    assert len(names) == 3
    assert_same_function(proto, folded, x=x)


def test_weights_that_a_caller_may_replace_are_left():
    proto = conv_bn(weights_as_inputs=True)
    _, report = fold_batch_norms(proto)
    reasons = {Reason.PARAMETERS_NOT_CONSTANT, Reason.WEIGHT_NOT_CONSTANT}
    assert (report.folds, len(report.refusals)) == ((), 1)
    assert report.refusals[0].reason in reasons


@pytest.mark.parametrize(
    ("operator", "domain"),
    [("QuantizeLinear", ""), ("MatMulInteger", ""), ("QAttention", "com.microsoft")],
)
def test_quantised_graph_is_left_whole(operator, domain):
    proto = foreign(TORCH, imports=', "com.microsoft" : 1')
    proto.graph.node.add(op_type=operator, domain=domain, input=["x", "h"], output=["q"])
    assert_whole(proto, Reason.QUANTISED, ["BatchNormalization", "Mul"], f"{operator} q")


def test_quantised_body_leaves_the_graph_whole():
    text = """g (bool k, float[N,3,8,8] x) => (float[N,4,6,6] y) {
        c = Conv(x, w) n = BatchNormalization(c, g, b, m, v)
        y = If(k) <
            then_branch = a () => (float[N,4,6,6] p) { p = DequantizeLinear(n, n) },
            else_branch = b () => (float[N,4,6,6] q) { q = Relu(n) }
        >
    }"""
    assert_whole(foreign(text), Reason.QUANTISED, ["BatchNormalization"], "DequantizeLinear p")


@pytest.mark.parametrize("opset", [7, 8])
def test_old_opset_is_left_whole(opset):
    proto = conv_bn(opset=opset, ir_version=3, weights_as_inputs=True)
    assert_whole(proto, Reason.OPSET_TOO_OLD, ["BatchNormalization"], f"opset {opset}")


def test_opset_of_the_future_is_left_whole():
    proto = conv_bn(opset=NEWEST + 1)
    detail = f"opset {NEWEST + 1}, of which {NEWEST}"
    assert_whole(proto, Reason.OPERATOR_UNKNOWN, ["BatchNormalization"], detail)


FUNCTION = """<domain : "mine", opset_import : ["" : 13]>
    Twice (p) => (q) {
        two = Constant<value = float[1] {2.0}>()
        one = Identity(two)
        whole = Constant<value = int64[1] {2}>()
        count = Shape(p)
        more = Mul(count, whole)
        unused = Relu(p)
        q = Mul(p, one)
    }"""


def test_function_is_left_whole_and_kept(x):
    text = """g (float[N,3,8,8] x) => (float[N,4,6,6] y) {
        c = Conv(x, w) n = BatchNormalization(c, g, b, m, v) y = mine.Twice(n)
    }"""
    proto = foreign(text + FUNCTION, imports=', "mine" : 1')
    folded, report = fold_batch_norms(proto)
    assert operators(folded) == ["Conv", "Twice"]
    assert list(folded.functions) == list(proto.functions)
    (refusal,) = report.refusals
    assert (refusal.node, refusal.operator, refusal.reason) == ("q", "Mul", Reason.FUNCTION)
    assert "mine.Twice" in refusal.detail
    assert_same_function(proto, folded, x=x)


def test_batch_norm_in_training_mode_is_listed():
    text = """g (float[2,3,8,8] x) => (float[2,4,6,6] y, float[4] m2, float[4] v2) {
        c = Conv(x, w) y, m2, v2 = BatchNormalization<training_mode = 1>(c, g, b, m, v)
    }"""
    assert_whole(foreign(text, 14), Reason.TRAINING_MODE, ["BatchNormalization"])


def test_constants_in_a_body_are_evaluated_and_the_body_survives(x):
    text = """g (bool k, float[2,3,8,8] x) => (float[2,4,6,6] y) {
        c = Conv(x, w) n = BatchNormalization(c, g, b, m, v)
        y = If(k) <
            then_branch = a () => (float[2,4,6,6] p) {
                two = Constant<value = float {2.0}>() four = Mul(two, two) e = Exp(n)
                p = Pow(e, four)
            },
            else_branch = b () => (float[2,4,6,6] q) { q = Relu(n) }
        >
    }"""
    proto = foreign(text)
    folded, report = fold_batch_norms(proto)
    assert len(report.folds) == 1
    (body,) = (a.g for a in folded.graph.node[-1].attribute if a.name == "then_branch")
    assert [node.op_type for node in body.node] == ["Exp", "Pow"]
    for k in (True, False):
        assert_same_function(proto, folded, x=x * 0.1, k=np.array(k))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64], ids=str)
def test_weights_of_other_dtypes_come_through_unharmed(dtype):
    number = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    proto = conv_bn(opset=22)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = number
    proto.graph.node.add(op_type="Add", input=["y", "apart"], output=["z"])
    proto.graph.node[1].output[0] = "n"
    proto.graph.node[2].input[0] = "r"
    proto.graph.node.insert(2, onnx.helper.make_node("Sin", ["n"], ["r"]))
    proto.graph.output[0].name = "z"
    arrays = {t.name: onnx.numpy_helper.to_array(t).astype(dtype) for t in proto.graph.initializer}
    arrays["apart"] = np.arange(6, dtype=dtype) / dtype(3)
    del proto.graph.initializer[:]
    for name, array in arrays.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto, full_check=True)
    folded, report = fold_batch_norms(proto)
    assert [fold.operator for fold in report.folds] == ["BatchNormalization"]
    tensors = {t.name: t for t in folded.graph.initializer}
    assert {t.data_type for t in tensors.values()} == {number}
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(tensors["apart"]), arrays["apart"].view(arrays["apart"].dtype)
    )
    g, v, w = (arrays[name].astype(np.float64) for name in "gvw")
    scale = g / np.sqrt(v + np.float32(1e-5))
    expected = (w * scale[:, None, None, None]).astype(dtype)
    actual = onnx.numpy_helper.to_array(tensors["w"])
    assert_close(actual, expected, {2: 1e-2, 8: FLOAT64}[expected.itemsize])


def test_sequences_optionals_and_other_domains_survive(x):
    text = """g (float[N,3,8,8] x, seq(float[N,4,6,6]) s, optional(float[2]) o)
        => (seq(float[N,4,6,6]) t, bool e, float[N,4,6,6] u) {
        c = Conv(x, w) n = BatchNormalization(c, g, b, m, v) t = SequenceInsert(s, n)
        e = OptionalHasElement(o) u = mine.Custom<strength = 2>(n, g)
    }"""
    proto = foreign(text, 18, imports=', "mine" : 1')
    folded, report = fold_batch_norms(proto)
    assert len(report.folds) == 1
    assert operators(folded) == ["Conv", "SequenceInsert", "OptionalHasElement", "Custom"]
    assert list(folded.graph.input) == list(proto.graph.input)
    assert list(folded.graph.output) == list(proto.graph.output)
    assert folded.graph.node[-1].attribute == proto.graph.node[-1].attribute
    assert folded.graph.node[-1].domain == "mine"


def sparse():
    values = onnx.numpy_helper.from_array(np.ones(2, np.float32), "k")
    indices = onnx.numpy_helper.from_array(np.array([0, 3]), "i")
    return onnx.helper.make_sparse_tensor(values, indices, [4, 1, 1])


def with_sparse_initializer(proto):
    proto.graph.sparse_initializer.append(sparse())
    proto.graph.node.add(op_type="Mul", input=["y", "k"], output=["z"])


def with_sparse_attribute(proto):
    proto.graph.node.append(onnx.helper.make_node("Constant", [], ["k"], sparse_value=sparse()))


def with_map(proto):
    proto.graph.node.append(
        onnx.helper.make_node("ZipMap", ["y"], ["z"], domain="ai.onnx.ml", classlabels_int64s=[1])
    )
    key = onnx.helper.make_map_type_proto(7, onnx.helper.make_tensor_type_proto(1, []))
    proto.graph.output.append(
        onnx.helper.make_value_info("z", onnx.helper.make_sequence_type_proto(key))
    )


def with_training(proto):
    proto.training_info.add().update_binding.add(key="w", value="w2")


@pytest.mark.parametrize(
    ("add", "reason"),
    [
        (with_sparse_initializer, Reason.OPERATOR_UNKNOWN),
        (with_sparse_attribute, Reason.OPERATOR_UNKNOWN),
        (with_map, Reason.OPERATOR_UNKNOWN),
        (with_training, Reason.PARAMETERS_NOT_CONSTANT),
    ],
)
def test_what_onnx_ir_cannot_hold_survives(add, reason, tmp_path):
    proto = conv_bn(imports=', "ai.onnx.ml" : 1')
    add(proto)
    assert_whole(proto, reason, ["BatchNormalization"], "the model holds")
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(ValueError, match=r"onnx_ir cannot hold .* Pass onnx.load\(path\)"):
        fold_batch_norms(tmp_path / "model.onnx")


def test_operator_in_error_does_not_hide_the_shapes_of_others(x):
    proto = conv_bn(imports=', "mine" : 1')
    proto.graph.node.insert(0, onnx.helper.make_node("Einsum", ["x"], ["e"], equation="a->b->c"))
    proto.graph.node.add(op_type="Custom", domain="mine", input=["e"], output=["u"])
    assert len(fold_batch_norms(proto)[1].folds) == 1


def test_there_are_never_more_nodes(x):
    for text in (TORCH, TENSORFLOW):
        proto = foreign(text)
        assert len(fold_batch_norms(proto)[0].graph.node) < len(proto.graph.node)


def test_folding_again_changes_nothing():
    folded, _ = fold_batch_norms(foreign(TORCH))
    assert fold_batch_norms(folded)[0] is folded
