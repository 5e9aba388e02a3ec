import numpy as np
import onnx_ir as ir
import pytest

from keras_bn.export.stages.simplify.shapes.known import KnownShapes
from keras_bn.export.stages.simplify.shapes.windows import RULES, window_padding
from tests.export.graphs import graph
from tests.export.stages.simplify.simplified import check

NOTHING = np.array([], np.int64)


@pytest.fixture
def known():
    return KnownShapes()


def padded(pads, axes=None):
    names = ", fill, axes" if axes is not None else ""
    text = f"""g (float[N,3,4] x, int64[K] p, float fill, int64[L] axes) => (float[A,B,C] y) {{
        y = Pad(x, p{names}) }}"""
    given = {} if axes is None else {"axes": np.array(axes, np.int64)}
    model = graph(text, p=np.array(pads, np.int64), fill=np.float32(0), **given)
    return model.graph.node(0)


def test_pads_stand_at_their_axes(known):
    assert known.pads(padded([1, 2, 3, 4, 5, 6])) == ([1, 2, 3], [4, 5, 6])
    assert known.pads(padded([1, 2, 3, 4], [-1, 0])) == ([2, 0, 1], [4, 0, 3])


def test_no_axes_are_not_all_axes(known):
    assert known.pads(padded([], [])) == ([0, 0, 0], [0, 0, 0])
    text = """g (float[N,3,H,W] x, int64[K] p, float fill, int64[K] axes, float[4,3,3,3] w)
              => (float[N,4,P,Q] y) { a = Pad(x, p, fill, axes) y = Conv(a, w) }"""
    weight = np.ones((4, 3, 3, 3), "f")
    check(text, ["Conv"], p=NOTHING, axes=NOTHING, fill=np.float32(0), w=weight)


def floats(*sizes):
    return ir.Value(name="x", shape=ir.Shape(sizes), type=ir.TensorType(ir.DataType.FLOAT))


def test_attributes_of_an_old_opset_are_read_alike(known):
    cut = ir.node("Slice", [floats(5, 6)], {"starts": [1], "ends": [3], "axes": [-1]})
    assert known.cuts(cut) == [(1, 1, 3, 1)]
    pad = ir.node("Pad", [floats(5, 6)], {"pads": [0, 1, 0, 2]})
    assert known.pads(pad) == ([0, 1], [0, 2])


def test_another_number_than_there_are_axes_is_not_guessed_at(known):
    assert known.pads(ir.node("Pad", [floats(5, 6)], {"pads": [0, 1, 0]})) is None
    cut = ir.node("Slice", [floats(5, 6)], {"starts": [1], "ends": [3, 4]})
    assert known.cuts(cut) is None


@pytest.mark.parametrize("listed", [{"pads": [1, 1]}, {"strides": [2]}, {"dilations": [1] * 3}])
def test_windows_of_another_rank_are_not_guessed_at(known, listed):
    conv = ir.node("Conv", [floats(1, 3, 8, 8), floats(4, 3, 3, 3)], listed)
    assert RULES["Conv"](known, conv) is None
    assert window_padding(known, conv) is None
