"""Hard sigmoids and hard swishes as other exporters write them, in files of every opset."""

import numpy as np
import onnx
import pytest

from keras_bn.export import fold_batch_norms
from tests.export.foreign_graphs import foreign, outputs, serialised
from tests.tolerances import assert_close

NUMBERS = {"three": 3.0, "six": 6.0, "sixth": 1 / 6, "half": 0.5, "one": 1.0, "zero": 0.0}
CLIP = {False: "Clip(a, zero, six)", True: "Clip<min = 0.0, max = 6.0>(a)"}
SWISH = {
    "paddle": "a = Add(n, three) q = {clip} p = Mul(n, q) y = Div(p, six)",
    "quotient before the product": "a = Add(n, three) q = {clip} p = Div(q, six) y = Mul(n, p)",
    "quotient of the other": "a = Add(n, three) q = {clip} p = Div(n, six) y = Mul(p, q)",
    "times a sixth": "a = Add(three, n) q = {clip} p = Mul(q, n) y = Mul(sixth, p)",
    "min, max": "a = Add(n, three) r = Max(a, zero) q = Min(r, six) p = Mul(n, q) y = Div(p, six)",
    "relu and min": "a = Add(n, three) r = Relu(a) q = Min(six, r) p = Mul(n, q) y = Mul(p, sixth)",
    "identities between": "e = Add(n, three) a = Identity(e) r = {clip} q = Identity(r) "
    "p = Mul(n, q) s = Identity(p) y = Div(s, six)",
    "mmcv": "s = Mul(n, sixth) a = Add(s, half) r = Max(a, zero) q = Min(r, one) y = Mul(n, q)",
}


def network(nodes, opset, ir_version=8):
    numbers = " ".join(
        f"{name} = Constant<value = float {{{number}}}>()"
        for name, number in NUMBERS.items()
        if f"{name}," in nodes.replace(")", ",")
    )
    text = f"""g (float[N,3,8,8] x) => (float[N,4,6,6] y) {{
        {numbers} c = Conv(x, w) n = BatchNormalization(c, g, b, m, v) {nodes} }}"""
    return foreign(text, opset, ir_version)


def folded(proto, samples, tolerance=2e-7):
    before = serialised(proto)
    result, report = fold_batch_norms(proto)
    assert serialised(proto) == before
    onnx.checker.check_model(result, full_check=True)
    assert_close(outputs(result, x=samples)[0], outputs(proto, x=samples)[0], tolerance)
    return [node.op_type for node in result.graph.node], report


@pytest.fixture
def x(rng):
    return rng.normal(size=(2, 3, 8, 8)).astype(np.float32) * 4


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 17, 22])
@pytest.mark.parametrize("form", SWISH)
def test_hard_swish_is_two_nodes_behind_the_convolution(form, opset, x):
    nodes = SWISH[form].format(clip=CLIP[opset < 11])
    kinds, report = folded(network(nodes, opset), x)
    assert kinds == ["Conv", "HardSigmoid", "Mul"]
    assert report.refusals == ()
    assert {row.how for row in report.folds} == {"backward", "clamp"}
    assert all(row.operations > 0 for row in report.folds)


@pytest.mark.parametrize("opset", [9, 13])
def test_three_in_the_bias_of_the_convolution(opset, x):
    """The numbers of the clamp have been folded into the convolution by another tool."""
    text = f"""g (float[N,3,8,8] x) => (float[N,4,6,6] y) {{
        six = Constant<value = float {{6.0}}>() zero = Constant<value = float {{0.0}}>()
        a = Conv(x, w, b) q = {CLIP[opset < 11]} y = Div(q, six) }}"""
    kinds, report = folded(foreign(text, opset), x)
    assert kinds == ["Conv", "HardSigmoid"]
    assert [(row.operator, row.how) for row in report.folds] == [("Div", "clamp")]


@pytest.mark.parametrize(
    "nodes", ["r = Max(x, zero) y = Min(one, r)", "r = Relu(x) y = Min(r, one)"]
)
def test_a_clamp_alone_is_written_with_no_affine_operator_beside_it(nodes, x):
    text = f"""g (float[2,3,8,8] x) => (float[2,3,8,8] y) {{
        zero = Constant<value = float {{0.0}}>() one = Constant<value = float {{1.0}}>()
        {nodes} }}"""
    kinds, report = folded(foreign(text), x)
    assert kinds == ["HardSigmoid"]
    assert (report.folds, report.refusals) == ((), ())
    assert sum(report.after.values()) < sum(report.before.values())


def test_a_clamp_in_a_body_is_written_there(x):
    text = """g (bool k, float[2,3,8,8] x) => (float[2,4,6,6] y) {
        c = Conv(x, w)
        y = If(k) <
            then_branch = t () => (float[2,4,6,6] p) {
                three = Constant<value = float {3.0}>() six = Constant<value = float {6.0}>()
                zero = Constant<value = float {0.0}>()
                a = Add(c, three) q = Clip(a, zero, six) p = Div(q, six)
            },
            else_branch = e () => (float[2,4,6,6] q) { q = Relu(c) } > }"""
    result, report = fold_batch_norms(foreign(text))
    (body,) = (a.g for a in result.graph.node[-1].attribute if a.name == "then_branch")
    assert [node.op_type for node in body.node] == ["HardSigmoid"]
    assert [row.how for row in report.folds] == ["clamp", "clamp"]


@pytest.mark.parametrize("opset", [9, 13])
@pytest.mark.parametrize("bounds", [(-1.0, 6.0), (6.0, 0.0), (0.0, float("nan"))])
def test_other_bounds_are_no_hard_sigmoid(bounds, opset):
    low, high = bounds
    proto = network(SWISH["paddle"].format(clip=CLIP[opset < 11]), opset)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Clip":
                attribute.f = low if attribute.name == "min" else high
            elif node.op_type == "Constant" and node.output[0] in ("zero", "six"):
                value = low if node.output[0] == "zero" else high
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(np.float32(value)))
    result, _ = fold_batch_norms(proto)
    assert "HardSigmoid" not in {node.op_type for node in result.graph.node}


def test_a_number_that_is_an_input_can_be_replaced():
    proto = network(SWISH["paddle"].format(clip=CLIP[False]), 13)
    constant = next(node for node in proto.graph.node if node.output[0] == "three")
    proto.graph.node.remove(constant)
    proto.graph.input.append(onnx.helper.make_tensor_value_info("three", 1, []))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(3.0), "three"))
    result, _ = fold_batch_norms(proto)
    assert "HardSigmoid" in {node.op_type for node in result.graph.node}
    assert "Add" in {node.op_type for node in result.graph.node}
