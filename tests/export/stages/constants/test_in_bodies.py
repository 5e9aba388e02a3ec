import numpy as np
import onnx_ir as ir

from keras_bn.export.stages.constants.evaluate import evaluate_constants
from tests.export.foreign_graphs import outputs
from tests.export.graphs import graph, operators

IF = """g (bool k, float[2] x, float[2] w) => (float[2] y) {{
    n = Neg(w)
    y = If(k) <
        then_branch = a () => (float[2] p) {{ {then} }},
        else_branch = b () => (float[2] q) {{ q = Relu(x) }}
    >
}}"""
X = np.array([3.0, -4.0], np.float32)


def check(then, expected, initializers):
    """Assert what is left of the body of an If, and that it computes the same."""
    model = graph(IF.format(then=then), w=np.array([1.0, 2.0], np.float32))
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    after = evaluate_constants(model)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    body = after.graph[-1].attributes["then_branch"].as_graph()
    assert [node.op_type for node in body] == expected
    assert sorted(body.initializers) == initializers
    for k in (True, False):
        inputs = {"k": np.array(k), "x": X}
        results = (outputs(ir.to_proto(m), **inputs)[0] for m in (after, model))
        np.testing.assert_allclose(*results)
    return after


def test_constants_of_the_body_itself():
    check(
        "two = Constant<value_float = 2.0>() four = Mul(two, two) p = Mul(x, four)",
        ["Mul"],
        ["four"],
    )


def test_constants_of_the_graph_around():
    after = check("s = Sqrt(w) t = Add(s, n) p = Mul(x, t)", ["Mul"], ["t"])
    assert operators(after) == ["If"]


def test_constant_that_the_body_gives_back_stays():
    check("p = Sqrt(w)", ["Sqrt"], [])


def test_what_depends_on_a_run_stays():
    check("s = Sin(x) p = Add(s, s)", ["Sin", "Add"], [])


def test_body_within_a_body():
    inner = """c = Constant<value_float = 2.0>() p = If(k) <
        then_branch = d () => (float[2] r) { e = Exp(c) r = Mul(x, e) },
        else_branch = f () => (float[2] s) { s = Add(x, c) }
    >"""
    after = check(inner, ["If"], ["c"])
    nested = after.graph[-1].attributes["then_branch"].as_graph()[0]
    assert [n.op_type for n in nested.attributes["then_branch"].as_graph()] == ["Mul"]


def test_body_of_a_loop():
    text = """g (int64 trips, bool go, float[2] x) => (float[2] y) {
        y = Loop(trips, go, x) <body = b (int64 i, bool more, float[2] state)
            => (bool again, float[2] next) {
            two = Constant<value = float {2.0}>() half = Reciprocal(two)
            again = Identity(more) next = Mul(state, half)
        }>
    }"""
    model = graph(text)
    after = evaluate_constants(model)
    body = after.graph[0].attributes["body"].as_graph()
    assert [node.op_type for node in body] == ["Identity", "Mul"]
    inputs = {"trips": np.array(3), "go": np.array(True), "x": X}
    np.testing.assert_allclose(outputs(ir.to_proto(after), **inputs)[0], X / 8)


def test_constant_keeps_the_layers_of_its_weights():
    model = graph(IF.format(then="t = Sqrt(w) p = Mul(x, t)"), w=np.ones(2, np.float32))
    model.graph.initializers["w"].meta["layers"] = frozenset({"dense"})
    after = evaluate_constants(model)
    body = after.graph[-1].attributes["then_branch"].as_graph()
    assert body.initializers["t"].meta["layers"] == {"dense"}
