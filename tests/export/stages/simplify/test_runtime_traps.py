"""What ONNX Runtime gets wrong, as a Pad and a pool up to 1.31, is not what we write."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn.export import export_onnx
from keras_bn.export.stages.simplify.simplify import simplify
from keras_bn.models import crnn
from tests.export.graphs import graph, operators, run_onnxruntime
from tests.export.reference_operators import run_reference
from tests.export.stages.simplify.test_simplify_properties import run_optimised
from tests.tolerances import assert_close

PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1])
OPSETS = pytest.mark.parametrize("opset", range(13, 19))


def is_matched(model):
    """Say whether ONNX Runtime 1.31 would make a Pad the padding of a pool.

    It asks for a constant Pad of zero bytes with at most three inputs and one reader, perhaps a
    Cast, and a pool whose `auto_pad` is NOTSET, once Transposes between them are moved away.
    """
    for pad in [node for node in model.graph if node.op_type == "Pad"]:
        fill = pad.inputs[2] if len(pad.inputs) > 2 else None
        (reader,) = {use.node for use in pad.outputs[0].uses()}
        while reader.op_type in ("Cast", "Transpose"):
            (reader,) = {use.node for use in reader.outputs[0].uses()}
        if (
            len(pad.inputs) <= 3
            and pad.attributes.get_string("mode", "constant") == "constant"
            and (fill is None or not any(fill.const_value.tobytes()))
            and reader.op_type in ("AveragePool", "MaxPool")
            and reader.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        ):
            return True
    return False


def check(text, *, opset, **weights):
    model = graph(text, opset=opset, **weights)
    assert is_matched(model)
    after = simplify(model)
    assert operators(after) == operators(model)
    assert not is_matched(after)
    assert ir.to_proto(simplify(after)) == ir.to_proto(after)
    for size in (6, 7):
        x = -np.abs(np.random.default_rng(0).normal(size=(2, 3, size, size))).astype("f") - 1
        expected = run_reference(model, {"x": x})
        for results in (run_onnxruntime(after, x=x), run_optimised(after, {"x": x})):
            for actual, wanted in zip(results, expected, strict=True):
                assert_close(actual, wanted)
    return after


@OPSETS
@pytest.mark.parametrize("attributes", ["", ", pads = [0, 0, 0, 0]", ", strides = [2, 2]"], ids=str)
def test_maximum_over_zeros_says_valid(opset, attributes):
    text = f"""g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {{
        a = Pad(x, p) y = MaxPool<kernel_shape = [3, 3]{attributes}>(a)
    }}"""
    pool = check(text, opset=opset, p=PADS).graph[-1]
    assert pool.attributes["auto_pad"].value == "VALID"
    assert "pads" not in pool.attributes


@OPSETS
def test_average_that_cannot_take_the_pad_says_valid(opset):
    text = """g (float[N,3,H,W] x, int64[8] p, float zero) => (float[N,3,P,Q] y) {
        a = Pad(x, p, zero) y = AveragePool<kernel_shape = [1, 2]>(a)
    }"""
    check(text, opset=opset, p=PADS, zero=np.float32(0))


@OPSETS
def test_maximum_behind_a_cast_says_valid(opset):
    text = """g (float[N,3,H,W] x, int64[8] p) => (double[N,3,P,Q] y) {
        a = Pad(x, p) b = Cast<to = 11>(a) y = MaxPool<kernel_shape = [3, 3]>(b)
    }"""
    check(text, opset=opset, p=PADS)


@OPSETS
def test_maximum_behind_a_transpose_says_valid(opset):
    text = """g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {
        a = Transpose<perm = [0, 2, 3, 1]>(x) b = Pad(a, p) c = Transpose<perm = [0, 3, 1, 2]>(b)
        y = MaxPool<kernel_shape = [3, 3]>(c)
    }"""
    check(text, opset=opset, p=np.array([0, 1, 1, 0, 0, 1, 1, 0]))


@OPSETS
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_pool_that_pads_too_is_kept_apart(opset, op_type):
    text = f"""g (float[N,3,H,W] x, int64[8] p) => (float[N,3,P,Q] y) {{
        a = Pad(x, p) y = {op_type}<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(a)
    }}"""
    pad = check(text, opset=opset, p=PADS).graph[0]
    if opset >= 18:
        assert pad.inputs[3].const_value.numpy().tolist() == [0, 1, 2, 3]
    else:
        fill = pad.inputs[2].const_value.numpy()
        assert fill == 0
        assert np.signbit(fill)


def test_pad_that_does_not_fill_zeros_is_left_alone():
    text = """g (float[N,3,H,W] x, int64[8] p, float low) => (float[N,3,P,Q] y) {
        a = Pad(x, p, low) y = MaxPool<kernel_shape = [3, 3]>(a)
    }"""
    model = graph(text, p=PADS, low=np.float32(-1))
    assert ir.to_proto(simplify(model)) == ir.to_proto(model)


@OPSETS
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (1, 3), (2, 3)])
@pytest.mark.parametrize("channels", [3, 16])  # other kernels for multiples of 16
def test_same_padding_of_a_kernel_below_the_stride(opset, op_type, kernel, stride, channels):
    text = f"""g (float[N,{channels},H,W] x) => (float[N,{channels},P,Q] y) {{
        y = {op_type}<kernel_shape = [{kernel}, 1], strides = [{stride}, 2],
                      auto_pad = "SAME_UPPER">(x)
    }}"""
    model = graph(text, opset=opset)
    after = simplify(model)
    assert "auto_pad" not in after.graph[0].attributes
    for size in (6, 7, 8, 9):
        x = np.random.default_rng(0).normal(size=(2, channels, size, size)).astype("f")
        (expected,) = run_reference(model, {"x": x})
        assert_close(run_onnxruntime(after, x=x)[0], expected)
        assert_close(run_optimised(after, {"x": x})[0], expected)


def test_same_padding_that_varies_from_run_to_run_is_left_alone():
    text = """g (float[N,3,H,W] x) => (float[N,3,P,Q] y) {
        y = MaxPool<kernel_shape = [3, 3], strides = [4, 4], auto_pad = "SAME_UPPER">(x)
    }"""
    model = graph(text)
    assert ir.to_proto(simplify(model)) == ir.to_proto(model)


@OPSETS
def test_transpose_that_keeps_the_order_is_gone_before_gemm(opset):
    """ONNX Runtime up to 1.28 takes it for a transposed operand."""
    text = """g (float[N,5] x, float[5,3] w, float[3] b) => (float[N,3] y) {
        a = Transpose<perm = [0, 1]>(x) y = Gemm(a, w, b)
    }"""
    weights = {"w": np.ones((5, 3), np.float32), "b": np.ones(3, np.float32)}
    assert operators(simplify(graph(text, opset=opset, **weights))) == ["Gemm"]


def test_recurrent_network_loads_in_float16(tmp_path):
    """Without this, ONNX Runtime 1.32 ends the process that loads the file."""
    path = tmp_path / "model.onnx"
    assert export_onnx(crnn.build(), path, precision="float16").parity.passed
    assert "MatMul" in [node.op_type for node in onnx.load(path).graph.node]
