import numpy as np

from keras_bn.export.graph.bypass import remove_identities
from tests.export.graphs import graph, operators, run_float64


def check(text, expected):
    model = graph(text)
    after = model.clone()
    remove_identities(after.graph)
    assert operators(after) == expected
    assert [v.name for v in after.graph.outputs] == [v.name for v in model.graph.outputs]
    x = np.array([1.0, -2.0], np.float32)
    for a, e in zip(run_float64(after, x=x), run_float64(model, x=x), strict=True):
        np.testing.assert_array_equal(a, e)


def test_identity_in_a_chain_goes():
    check("g (float[2] x) => (float[2] y) { a = Identity(x) b = Identity(a) y = Neg(b) }", ["Neg"])


def test_identity_before_an_output_gives_it_its_name():
    check("g (float[2] x) => (float[2] y) { a = Neg(x) y = Identity(a) }", ["Neg"])


def test_identity_between_names_of_the_surface_stays():
    check("g (float[2] x) => (float[2] y) { y = Identity(x) }", ["Identity"])
    check(
        "g (float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Identity(y) }",
        ["Neg", "Identity"],
    )


def test_two_outputs_of_one_tensor_keep_one_identity():
    check(
        """g (float[2] x) => (float[2] y, float[2] z) {
            a = Neg(x) y = Identity(a) z = Identity(a) }""",
        ["Neg", "Identity"],
    )


def test_identity_of_an_outer_value_stays_in_a_subgraph():
    model = graph(
        """g (float[2] x, bool b) => (float[2] y) {
        a = Neg(x)
        y = If(b) < then_branch = t () => (float[2] p) { p = Identity(a) },
                    else_branch = e () => (float[2] q) { c = Identity(x) q = Abs(c) } > }"""
    )
    after = model.clone()
    for part in [after.graph, *after.graph.subgraphs()]:
        remove_identities(part)
    assert [node.op_type for node in after.graph.all_nodes()] == ["Neg", "If", "Identity", "Abs"]
    x = np.array([1.0, -2.0], np.float32)
    for b in (np.array(True), np.array(False)):
        np.testing.assert_array_equal(run_float64(after, x=x, b=b), run_float64(model, x=x, b=b))
