"""What other tools get wrong: constants along the width, reversed operands, and old Softmaxes.

A constant of shape (W) stands along the last axis, however many channels there are: with W = C it
looks like one number for each channel, and is none. The oracle is NumPy in float64.
"""

import numpy as np
import onnx
import pytest

from keras_bn.export import fold_batch_norms
from keras_bn.export.runtime.session import LEVELS, OnnxRuntime
from tests.export.foreign_graphs import foreign
from tests.tolerances import assert_close

C = 4  # channels behind the convolution, and its height and width
SHAPES = {"w": (C, 3, 2, 2), "s": (C, 1, 1), "k": (C,)} | dict.fromkeys("gbmv", (C,))
ALONG = {"width": (C,), "height": (C, 1), "channels": (C, 1, 1), "channels, rank 4": (1, C, 1, 1)}
SIZES = {"known": "float[2,3,5,5]", "free": "float[N,3,H,W]", "free channels": "float[N,K,H,W]"}


def convolved(a):
    windows = np.lib.stride_tricks.sliding_window_view(a["x"], (2, 2), (2, 3))
    return np.einsum("nchwij,ocij->nohw", windows, a["w"])


def normalised(a, c):
    gamma, beta, mean, variance = (a[name].reshape(-1, 1, 1) for name in "gbmv")
    return gamma * (c - mean) / np.sqrt(variance + 1e-5) + beta


def softmax(c, axis):
    """Return that of opsets before 13, over all axes from one on."""
    e = np.exp(c - c.max(tuple(range(axis, c.ndim)), keepdims=True))
    return e / e.sum(tuple(range(axis, c.ndim)), keepdims=True)


def folded(nodes, truth, *, opset=13, sizes=SIZES["known"], least=-3.0, **shapes):
    """Fold, prove, and compare with NumPy in ONNX Runtime; return the operators that are left."""
    text = f"g ({sizes} x) => (float[N,{C},P,Q] y) {{ c = Conv(x, w) {nodes} }}"
    proto = foreign(text, opset, weights=SHAPES | shapes)
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    arrays["x"] = np.random.default_rng(0).uniform(least, 3.0, (2, 3, 5, 5)).astype(np.float32)
    result, _ = fold_batch_norms(proto, check="K" not in sizes)  # it draws 32 of them
    wide = {name: array.astype(np.float64) for name, array in arrays.items()}
    for level in LEVELS:
        run = OnnxRuntime(result.SerializeToString(), level).runner(["x"], ["y"])
        assert_close(run([arrays["x"]])[0], truth(wide, convolved(wide)), 2e-6)
    return [node.op_type for node in result.graph.node]


ONE = {
    "Mul": ("y = Mul(c, k)", lambda a, c: c * a["k"]),
    "Mul, reversed": ("y = Mul(k, c)", lambda a, c: c * a["k"]),
    "Add": ("y = Add(c, k)", lambda a, c: c + a["k"]),
    "Sub": ("y = Sub(c, k)", lambda a, c: c - a["k"]),
    "Sub, reversed": ("y = Sub(k, c)", lambda a, c: a["k"] - c),
    "Div": ("y = Div(c, k)", lambda a, c: c / a["k"]),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("along", ALONG)
@pytest.mark.parametrize("name", ONE)
def test_constant_folds_along_the_channels_alone(name, along, sizes):
    kinds = folded(*ONE[name], sizes=sizes, k=ALONG[along])
    assert kinds == (["Conv"] if "channels" in along else ["Conv", name.split(",")[0]])


@pytest.mark.parametrize("along", ALONG)
def test_slopes_of_a_prelu_stay_where_they_are(along):
    nodes = "n = BatchNormalization(c, g, b, m, v) p = PRelu(n, k) y = Mul(p, s)"

    def truth(a, c):
        n = normalised(a, c)
        return np.where(n < 0, a["k"] * n, n) * a["s"]

    assert folded(nodes, truth, k=ALONG[along]) == ["Conv", "PRelu"]


@pytest.mark.parametrize("along", ALONG)
@pytest.mark.parametrize("behind", ["", "Mul", "Add"])
def test_division_by_a_convolution_is_not_affine(along, behind):
    nodes = "m1 = Mul(c, s) d = Div(k, m1) " + (f"y = {behind}(d, s)" if behind else "y = Abs(d)")
    ends = {"": lambda d, s: np.abs(d), "Mul": np.multiply, "Add": np.add}

    def truth(a, c):
        return ends[behind](a["k"] / (c * a["s"]), a["s"])

    kinds = folded(nodes, truth, least=0.1, k=ALONG[along])
    assert kinds[:2] == ["Conv", "Div"]


@pytest.mark.parametrize("opset", [9, 11, 12])
@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("moved", [False, True])
def test_softmax_before_opset_13_is_over_all_axes_from_its_own_on(opset, axis, moved):
    attributes = "" if axis == 1 else f"<axis = {axis}>"
    between = f"r = Softmax{attributes}(n)"
    if moved:
        between = f"t = Transpose<perm = [0,2,3,1]>(n) q = Softmax{attributes}(t) "
        between += "r = Transpose<perm = [0,3,1,2]>(q)"
    nodes = f"n = BatchNormalization(c, g, b, m, v) {between} y = Mul(r, s)"

    def truth(a, c):
        n = normalised(a, c)
        to, back = ((0, 2, 3, 1), (0, 3, 1, 2)) if moved else ((0, 1, 2, 3),) * 2
        return softmax(n.transpose(to), axis).transpose(back) * a["s"]

    kinds = folded(nodes, truth, opset=opset)
    assert "BatchNormalization" not in kinds
    assert "Softmax" in kinds
    assert kinds[-1] == "Mul"


@pytest.mark.parametrize("opset", [9, 11, 12])
def test_softmax_of_constants_before_opset_13(opset):
    nodes = "q = Softmax<axis = 0>(k) y = Mul(c, q)"
    folded(nodes, lambda a, c: c * softmax(a["k"], 0), opset=opset, k=(1, C, 1, 1))
