import numpy as np
from graphs import graph, operators, run_float64

from keras_bn.export.layout.identities import remove_identities


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
