"""Every operator that may compute in float16, at every opset: valid, and close to float32."""

import re

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn.export.stages.precision.float16_operators import KNOWN
from keras_bn.export.stages.precision.set_precision import set_precision
from tests.export.graphs import graph, run_onnxruntime
from tests.tolerances import HALF, assert_close

GENERATOR = np.random.default_rng(0)


def weight(*shape):
    return (GENERATOR.normal(size=shape) * 0.5).astype(np.float32)


def int64(*values):
    return np.array(values, np.int64)


# The call on x of shape (2, 4, 6), or (1, 4, 6, 6) as `image`, and its constants.
CALLS = {
    **{op: (f"{op}(x)", {}) for op in "Abs Elu Erf HardSigmoid Neg Relu Selu Sigmoid".split()},
    **{op: (f"{op}(x)", {}) for op in "HardSwish Identity LeakyRelu Softsign Tanh".split()},
    **{op: (f"{op}(x, w)", {"w": weight(6)}) for op in "Add Div Max Min Mul PRelu Sub Sum".split()},
    "AveragePool": ("AveragePool<kernel_shape=[2,2], pads=[1,1,0,0]>(image)", {}),
    "BatchNormalization": (
        "BatchNormalization(image, g, w, m, v)",
        {"g": weight(4), "w": weight(4), "m": weight(4), "v": weight(4) ** 2 + np.float32(0.1)},
    ),
    "Clip": ("Clip(x, w, v)", {"w": np.array(-0.5, np.float32), "v": np.array(0.25, np.float32)}),
    "Compress": ("Compress<axis=1>(x, w)", {"w": np.array([True, False, True])}),
    "Concat": ("Concat<axis=2>(x, w, x)", {"w": weight(2, 4, 1)}),
    "Conv": (
        "Conv<group=2, pads=[1,1,0,0]>(image, w, v)",
        {"w": weight(6, 2, 3, 3), "v": weight(6)},
    ),
    "ConvTranspose": ("ConvTranspose<strides=[2,2]>(image, w)", {"w": weight(4, 3, 2, 2)}),
    "DepthToSpace": ("DepthToSpace<blocksize=2>(image)", {}),
    "Dropout": ("Dropout(x, w)", {"w": np.array(0.5, np.float32)}),
    "Einsum": ('Einsum<equation="abc,cd->abd">(x, w)', {"w": weight(6, 3)}),
    "Expand": ("Expand(x, w)", {"w": int64(3, 2, 4, 6)}),
    "Flatten": ("Flatten(x)", {}),
    "GRU": (
        "GRU<hidden_size=3>(x, w, v, b)",
        {"w": weight(1, 9, 6), "v": weight(1, 9, 3), "b": weight(1, 18)},
    ),
    "Gather": ("Gather<axis=1>(x, w)", {"w": int64(3, 0)}),
    "GatherElements": ("GatherElements<axis=2>(x, w)", {"w": np.zeros((2, 4, 1), np.int64)}),
    "GatherND": ("GatherND(x, w)", {"w": int64([1, 2])}),
    "Gemm": ("Gemm<transB=1, alpha=0.5>(f, w, v)", {"w": weight(3, 24), "v": weight(3)}),
    "GlobalMaxPool": ("GlobalMaxPool(image)", {}),
    "LSTM": ("LSTM<hidden_size=3>(x, w, v)", {"w": weight(1, 12, 6), "v": weight(1, 12, 3)}),
    "MatMul": ("MatMul(x, w)", {"w": weight(6, 5)}),
    "MaxPool": ("MaxPool<kernel_shape=[3,3], strides=[2,2]>(image)", {}),
    "Pad": ("Pad(x, w, v)", {"w": int64(0, 0, 1, 0, 1, 0), "v": np.array(0.5, np.float32)}),
    "RNN": ("RNN<hidden_size=3>(x, w, v)", {"w": weight(1, 3, 6), "v": weight(1, 3, 3)}),
    "ReduceMax": ("ReduceMax(x)", {}),
    "ReduceMin": ("ReduceMin(x)", {}),
    "Reshape": ("Reshape(x, w)", {"w": int64(0, 8, -1)}),
    "Resize": ('Resize<mode="nearest">(image, , w)', {"w": np.float32([1, 1, 2, 2])}),
    "ReverseSequence": ("ReverseSequence<batch_axis=0, time_axis=1>(x, w)", {"w": int64(1, 3)}),
    "Slice": ("Slice(x, w, v, a)", {"w": int64(1), "v": int64(3), "a": int64(2)}),
    "SpaceToDepth": ("SpaceToDepth<blocksize=2>(image)", {}),
    "Split": ("Split<axis=2>(x, w)", {"w": int64(2, 4)}),
    "Squeeze": ("Squeeze(u, w)", {"w": int64(0)}),
    "Tile": ("Tile(x, w)", {"w": int64(1, 2, 1)}),
    "Transpose": ("Transpose<perm=[2,0,1]>(x)", {}),
    "Trilu": ("Trilu(x)", {}),
    "Unsqueeze": ("Unsqueeze(x, w)", {"w": int64(1)}),
    "Where": ("Where(w, x, v)", {"w": np.arange(6) > 2, "v": weight(6)}),
}
SHAPES = {"image": (1, 4, 6, 6), "u": (1, 4, 6), "f": (2, 24), "x": (2, 4, 6)}
FIRST = {"HardSwish": 14, "Trilu": 14}
ELSEWHERE = {"Celu", "Gelu", "GlobalAveragePool", "ReduceMean", "ReduceSum"}  # never, or above


def test_every_known_operator_is_tested():
    assert CALLS.keys() | ELSEWHERE == KNOWN


@pytest.mark.parametrize("operator", sorted(CALLS))
def test_operator_is_valid_and_close_in_float16_at_every_opset(operator):
    call, constants = CALLS[operator]
    name = next(name for name in SHAPES if re.search(rf"[( ]{name}\b", call))
    sample = np.random.default_rng(1).normal(size=SHAPES[name]).astype(np.float32)
    weights = [declared(weight, array) for weight, array in constants.items()]
    results = "o, rest" if operator == "Split" else "o"
    text = f"""g ({", ".join([declared("s", sample), *weights])}, int64[1] flat) => (float[M] y)
    {{ {name} = Tanh(s)  {results} = {call}  y = Reshape(o, flat) }}"""
    for opset in range(FIRST.get(operator, 13), 19):
        model = graph(text, opset, flat=int64(-1), **constants)
        result, report = set_precision(model, "float16", [{"s": sample}])
        onnx.checker.check_model(ir.to_proto(result), full_check=True)
        assert (report.float16, report.float32) == (3 - (operator == "Identity"), ())
        found, expected = (run_onnxruntime(m, s=sample)[0] for m in (result, model))
        assert_close(found, expected, 2 * HALF["float16"])


def declared(name, array):
    """Declare a value in ONNX text."""
    kind = {"float32": "float"}.get(str(array.dtype), str(array.dtype))
    sizes = ",".join(map(str, array.shape))
    return f"{kind}[{sizes}] {name}" if sizes else f"{kind} {name}"
