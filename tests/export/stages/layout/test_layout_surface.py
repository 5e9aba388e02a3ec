"""What the outside of a graph sees: inputs, outputs, subgraphs, other domains, names."""

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn.export.errors import ExportError
from keras_bn.export.graph.exact import ExactTensor, exact
from keras_bn.export.stages.layout.transposes import cancel_transposes
from tests.export.graphs import graph, operators, run_float64
from tests.export.stages.layout.layout_checks import TO_NCHW, TO_NHWC, X, floats, integers
from tests.tolerances import FLOAT64, assert_close

NETWORK = f"""g (float[N,4,5,3] x, float[2,3,1,1] w) => (float[N,4,5,2] y, float[N,2] z) {{
    a = Transpose{TO_NCHW}(x) b = Conv(a, w) c = Transpose{TO_NHWC}(b) y = Softmax<axis = -1>(c)
    p = GlobalMaxPool(b) z = Flatten(p) }}"""


def shapes(values):
    return [[str(size) for size in value.shape] for value in values]


def test_inputs_and_outputs_can_be_channels_first():
    model = graph(NETWORK, w=floats(2, 3, 1, 1))
    after = cancel_transposes(model, inputs_as_nchw=["x"], outputs_as_nchw=("y",))
    assert "Transpose" not in operators(after)
    assert shapes(after.graph.inputs) == [["N", "3", "4", "5"]]
    assert shapes(after.graph.outputs) == [["N", "2", "4", "5"], ["N", "2"]]
    assert [v.name for v in [*after.graph.inputs, *after.graph.outputs]] == ["x", "y", "z"]
    x = floats(2, 4, 5, 3)
    y, z = run_float64(model, x=x)
    first, second = run_float64(after, x=x.transpose(0, 3, 1, 2))
    assert_close(first, y.transpose(0, 3, 1, 2), FLOAT64)
    assert_close(second, z, FLOAT64)


def test_without_names_each_keeps_one_transpose():
    after = cancel_transposes(graph(NETWORK, w=floats(2, 3, 1, 1)))
    assert operators(after).count("Transpose") == 2
    assert shapes(after.graph.outputs) == [["N", "4", "5", "2"], ["N", "2"]]


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_channels_first_input_that_is_an_output_too(rank):
    sizes = ",".join(map(str, range(2, 2 + rank)))
    model = graph(f"g (float[{sizes}] x) => (float[{sizes}] y) {{ y = Identity(x) }}")
    after = cancel_transposes(model, inputs_as_nchw=["x"])
    x = floats(*range(2, 2 + rank))
    moved = x.transpose(0, rank - 1, *range(1, rank - 1))
    np.testing.assert_array_equal(run_float64(after, x=moved)[0], x)
    both = cancel_transposes(model, inputs_as_nchw=["x"], outputs_as_nchw=["y"])
    assert operators(both) == ["Identity"]
    np.testing.assert_array_equal(run_float64(both, x=moved)[0], moved)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs_as_nchw": ["image"]}, "Received: 'image'. There are: 'x'."),
        ({"outputs_as_nchw": ["x"]}, "Received: 'x'. There are: 'y', 'z'."),
        ({"outputs_as_nchw": ["z"]}, "Received: 'z' of shape [N,2]. Leave it out."),
    ],
)
def test_name_that_is_none_of_those_raises(arguments, message):
    with pytest.raises(ExportError, match=re.escape(message)):
        cancel_transposes(graph(NETWORK, w=floats(2, 3, 1, 1)), **arguments)


def test_subgraph_reads_what_it_captured():
    text = f"""g ({X}, bool q) => (float[N,4,5,3] y, float[N,3,4,5] z) {{
        a = Transpose{TO_NHWC}(x) b = Relu(a)
        y = If (q) <then_branch = t () => (float[N,4,5,3] o) {{ o = Neg(b) }},
                    else_branch = e () => (float[N,4,5,3] o) {{ o = Add(a, b) }}>
        c = Sigmoid(b) z = Transpose{TO_NCHW}(c) }}"""
    model = graph(text)
    after = cancel_transposes(model)
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    for q in (np.array(True), np.array(False)):
        expected = run_float64(model, x=floats(2, 3, 4, 5), q=q)
        for a, e in zip(run_float64(after, x=floats(2, 3, 4, 5), q=q), expected, strict=True):
            assert_close(a, e, FLOAT64)


def test_operator_of_another_domain_reads_what_it_did():
    model = graph(f"g ({X}) => (float[N,4,5,3] y) {{ a = Transpose{TO_NHWC}(x) y = Relu(a) }}")
    model.graph[1].domain = "com.example"
    after = cancel_transposes(model)
    assert operators(after) == ["Transpose", "Relu"]


def test_output_computed_as_another_one_gets_an_identity():
    text = f"""g ({X}) => (float[N,3,4,5] y, float[N,3,4,5] z) {{
        y = Relu(x) a = Transpose{TO_NHWC}(y) z = Transpose{TO_NCHW}(a) }}"""
    after = cancel_transposes(graph(text))
    assert operators(after) == ["Relu", "Identity"]
    assert [value.name for value in after.graph.outputs] == ["y", "z"]


def test_constant_stays_exact_and_keeps_its_layers():
    text = f"""g ({X}, float[3] c) => (float[N,3,4,5] y) {{
        a = Transpose{TO_NHWC}(x) b = Mul(a, c) d = Transpose{TO_NCHW}(b) y = Neg(d) }}"""
    model = graph(text, c=floats(3))
    third = np.full(3, 1 / 3)
    value = model.graph.initializers["c"]
    value.const_value = ExactTensor(third, ir.DataType.FLOAT)
    value.meta["layers"] = frozenset({"bn"})
    [moved] = cancel_transposes(model).graph.initializers.values()
    np.testing.assert_array_equal(exact(moved).ravel(), third)
    assert moved.meta["layers"] == {"bn"}


def test_shapes_and_types_of_new_values_are_right():
    model = graph(NETWORK, w=floats(2, 3, 1, 1))
    after = cancel_transposes(model)
    proto = ir.to_proto(after)
    onnx.checker.check_model(proto, full_check=True)
    del proto.graph.value_info[:]
    inferred = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    for node, other in zip(after.graph, inferred.graph, strict=True):
        assert node.outputs[0].shape == other.outputs[0].shape
        assert node.outputs[0].type == other.outputs[0].type


def test_old_opset_is_left_alone():
    text = (
        f"g ({X}) => (float[N,3,4,5] y) {{ a = Transpose{TO_NHWC}(x) y = Transpose{TO_NCHW}(a) }}"
    )
    model = graph(text, opset=12)
    assert operators(cancel_transposes(model)) == ["Transpose", "Transpose"]


def test_unknown_rank_is_left_alone():
    text = f"""g (float[N,3,4,5] x, int64[r] s) => (float[A,B,C,D] y) {{
        a = Transpose{TO_NHWC}(x) b = Reshape(a, s) c = Relu(b) y = Transpose{TO_NCHW}(c) }}"""
    model = graph(text)
    for node in model.graph:
        if node.op_type != "Transpose":
            node.outputs[0].shape = None
    after = cancel_transposes(model)
    inputs = {"x": floats(2, 3, 4, 5), "s": integers(2, 2, 5, 6)}
    np.testing.assert_array_equal(run_float64(after, **inputs)[0], run_float64(model, **inputs)[0])
