"""The forms that operators have had since opset 9: attributes that became inputs, and back."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keras_bn.export import fold_batch_norms
from tests.export.stages.folding.fold_checks import run_runtime
from tests.tolerances import FLOAT32, assert_close

OPSETS = (9, 10, 11, 12, 13, 17, 18, 19, 21, 22, 23)
BN = "BatchNormalization"
X = "float[2,3,8,8] x"
WEIGHTS = {  # shapes; g, k and v are positive
    **dict.fromkeys("gbmvkt", (4,)),
    "w": (4, 3, 3, 3),
    "w1": (4, 3, 1, 1),
    "w2": (4, 4, 3, 3),
    "wm": (3, 4),
    "wd": (4, 5),
    "wf": (36, 5),
    "c5": (5,),
    "k411": (4, 1, 1),
    "k311": (3, 1, 1),
    "k211": (2, 1, 1),
    "u": (),
    "wx": (1, 9, 4),
    "r": (1, 9, 3),
    "bb": (1, 18),
    "table": (7, 4),
}
CONSTANTS = {
    "ax": np.array([2, 3]),
    "i1": np.array([1]),
    "i3": np.array([3]),
    "i13": np.array([1, 3]),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]),
    "half": np.float32(0.5),
    "scales": np.float32([1, 1, 2, 2]),
    "none": np.float32([]),
}


def since(opset, new, old):
    """Return a form that operators have since an opset, and the one before."""
    return lambda actual: new if actual >= opset else old


# name: inputs and weights, outputs, nodes as text or a function of the opset, what is left
CASES = {
    "BatchNormalization": (
        X,
        "float[2,4,6,6] y",
        f"c = Conv(x, w) y = {BN}(c, g, b, m, v)",
        "Conv",
    ),
    "Squeeze": (
        "float[2,4,8,8] x",
        "float[2,5] y",
        since(
            13,
            f"n = {BN}(x, g, b, m, v) p = GlobalAveragePool(n) s = Squeeze(p, ax)"
            "y = Gemm(s, wd, c5)",
            f"n = {BN}(x, g, b, m, v) p = GlobalAveragePool(n) s = Squeeze<axes = [2, 3]>(p)"
            "y = Gemm(s, wd, c5)",
        ),
        "GlobalAveragePool Squeeze Gemm",
    ),
    "ReduceMean": (
        "float[2,4,8,8] x",
        "float[2,5] y",
        since(
            18,
            f"n = {BN}(x, g, b, m, v) s = ReduceMean<keepdims = 0>(n, ax) y = Gemm(s, wd, c5)",
            f"n = {BN}(x, g, b, m, v) s = ReduceMean<axes = [-1, 2], keepdims = 0>(n)"
            "y = Gemm(s, wd, c5)",
        ),
        "ReduceMean Gemm",
    ),
    "ReduceSum": (
        "float[2,4,8,8] x",
        "float[2,5] y",
        since(
            13,
            "n = Mul(x, k411) s = ReduceSum<keepdims = 0>(n, ax) y = Gemm(s, wd, c5)",
            "n = Mul(x, k411) s = ReduceSum<axes = [2, 3], keepdims = 0>(n) y = Gemm(s, wd, c5)",
        ),
        "ReduceSum Gemm",
    ),
    "Slice": (
        X,
        "float[2,2,6,6] y",
        since(
            10,
            "c = Conv(x, w) s = Slice(c, i1, i3, i1) y = Mul(s, k211)",
            "c = Conv(x, w) s = Slice<axes = [1], starts = [1], ends = [3]>(c) y = Mul(s, k211)",
        ),
        "Conv Slice",
    ),
    "Split": (
        X,
        "float[2,1,6,6] z, float[2,3,6,6] y",
        since(
            13,
            "c = Conv(x, w) z, s = Split<axis = 1>(c, i13) y = Mul(s, k311)",
            "c = Conv(x, w) z, s = Split<axis = 1, split = [1, 3]>(c) y = Mul(s, k311)",
        ),
        "Conv Split",
    ),
    "Pad with a value": (
        X,
        "float[2,4,8,8] y",
        since(
            11,
            "c = Conv(x, w) s = Pad(c, pads, half) d = Mul(s, u) y = Add(d, half)",
            "c = Conv(x, w) s = Pad<pads = [0, 0, 1, 1, 0, 0, 1, 1], value = 0.5>(c)"
            "d = Mul(s, u) y = Add(d, half)",
        ),
        "Conv Pad",
    ),
    "Resize": (
        X,
        "float[2,4,12,12] y",
        lambda opset: (
            "c = Conv(x, w) s = "
            + ("Upsample" if opset < 10 else "Resize")
            + ("(c, scales)" if opset < 11 else "(c, none, scales)")
            + f" y = {BN}(s, g, b, m, v)"
        ),
        "Conv Resize",
    ),
    "Dropout": (
        X,
        "float[2,4,6,6] y",
        f"c = Conv(x, w) d = Dropout(c) y = {BN}(d, g, b, m, v)",
        "Conv Dropout",
    ),
    "Flatten": (
        "float[2,4,3,3] x",
        "float[2,5] y",
        f"n = {BN}(x, g, b, m, v) s = Flatten(n) y = Gemm<alpha = 0.5, beta = 2.0>(s, wf, c5)",
        "Flatten Gemm",
    ),
    "MatMul that needs a bias": (
        "float[2,3] x",
        "float[2,4] y",
        f"p = MatMul(x, wm) y = {BN}(p, g, b, m, v)",
        "Gemm",
    ),
    "GRU": (
        "float[6,2,4] x",
        "float[6,1,2,3] y",
        "q = Mul(x, k) s = Add(q, t)"
        "y = GRU<hidden_size = 3, linear_before_reset = 1>(s, wx, r, bb)",
        "GRU",
    ),
    "Gather of a table": (
        "int64[2,5] i",
        "float[2,5,4] y",
        "e = Gather(table, i) q = Mul(e, k) y = Add(q, t)",
        "Gather",
    ),
    "average that counts padding": (
        X,
        "float[2,4,6,6] y",
        "c = Conv(x, w) s = AveragePool<kernel_shape = [3, 3], pads = [1, 1, 1, 1],"
        f"count_include_pad = 1>(c) y = {BN}(s, g, b, m, v)",
        f"Conv AveragePool {BN}",
    ),
    "pre-activation": (
        X,
        "float[2,4,8,8] y",
        f"c = Conv(x, w1) n = {BN}(c, g, b, m, v) a = Relu(n) d = Conv<pads = [1, 1, 1, 1]>(a, w2)"
        "e = Add(c, d) y = Relu(e)",
        "Conv Relu Conv Add Relu",
    ),
}


def weight(name, rng):
    if name in CONSTANTS:
        return CONSTANTS[name]
    positive = name[0] in "gkv"
    shape = WEIGHTS[name]
    array = rng.uniform(0.5, 2.0, shape) if positive else 0.5 * rng.normal(size=shape)
    return np.asarray(array, np.float32)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", CASES)
def test_operator_of_every_opset(name, opset, rng):
    data, outputs, nodes, left = CASES[name]
    nodes = nodes if isinstance(nodes, str) else nodes(opset)
    proto = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]> a ({data}) => ({outputs}) {{ {nodes} }}'
    )
    read = {operand for node in proto.graph.node for operand in node.input}
    for operand in sorted(read & {*WEIGHTS, *CONSTANTS}):
        proto.graph.initializer.append(
            numpy_helper.from_array(np.asarray(weight(operand, rng)), operand)
        )
    (value,) = proto.graph.input
    sizes = [d.dim_value for d in value.type.tensor_type.shape.dim]
    ids = value.name == "i"
    feeds = {value.name: rng.integers(0, 7, sizes) if ids else np.float32(rng.normal(size=sizes))}
    folded, report = fold_batch_norms(proto)
    onnx.checker.check_model(folded, full_check=True)
    expected = left.replace("Resize", "Upsample") if opset < 10 else left
    assert [node.op_type for node in folded.graph.node] == expected.split(), report
    for actual, wanted in zip(run_runtime(folded, feeds), run_runtime(proto, feeds), strict=True):
        assert_close(actual, wanted, FLOAT32)
