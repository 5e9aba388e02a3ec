"""Slices of tensors whose batch, and more, is free: what they take whole hinders nothing."""

import numpy as np
import onnx
import pytest

from keras_bn.export import Reason, fold_batch_norms
from tests.export.foreign_graphs import foreign, outputs
from tests.tolerances import assert_close

END = 2**31 - 1
BEHIND = "BatchNormalization(s, g, b, m, v)"


def network(starts, ends, axes, steps=(1,), sizes="N,3,8,8", first="Conv(x, w)"):
    steps = list(steps) * (len(axes) if len(steps) == 1 else 1)
    vectors = {"i": starts, "j": ends, "a": axes, "t": steps}
    constants = " ".join(
        f"{name} = Constant<value = int64[{len(v)}] {{{', '.join(map(str, v))}}}>()"
        for name, v in vectors.items()
    )
    text = f"""g (float[{sizes}] x) => (float[p,q,r,u] y) {{ {constants}
        c = {first} s = Slice(c, i, j, a, t) n = {BEHIND} y = Relu(n) }}"""
    return foreign(text)


SLICES = {
    "crop of all four axes": ((0, 0, 1, 2), (END, END, -1, END), (0, 1, 2, 3)),
    "crop of two": ((1, 1), (-1, -1), (2, 3)),
    "crop of the batch": ((0, 1), (2, 4), (0, 2)),
    "every second": ((0, 0), (END, END), (2, 3), (2,)),
    "backwards": ((-1,), (-END,), (2,), (-1,)),
}


@pytest.mark.parametrize("sizes", ["N,3,8,8", "N,3,h,k", "2,3,8,8"])
@pytest.mark.parametrize("name", SLICES)
def test_batch_norm_behind_a_slice_folds(name, sizes, rng):
    proto = network(*SLICES[name], sizes=sizes)
    result, report = fold_batch_norms(proto)
    kinds = [node.op_type for node in result.graph.node if node.op_type != "Constant"]
    assert kinds == ["Conv", "Slice", "Relu"]
    assert report.refusals == ()
    onnx.checker.check_model(result, full_check=True)
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    assert_close(outputs(result, x=x)[0], outputs(proto, x=x)[0], 1e-6)


def test_map_that_differs_along_a_cut_axis_of_free_size_stays():
    proto = network((1,), (3,), (1,), sizes="N,C,8,8", first="Sin(x)")
    result, report = fold_batch_norms(proto)
    assert result is proto
    assert report.refusals[0].reason in {Reason.SHAPE_UNKNOWN, Reason.NOT_LINEAR}


def test_one_channel_that_a_gather_takes(rng):
    text = """g (float[N,3,8,8] x) => (float[N,6,6] y) {
        i = Constant<value = int64 {2}>() two = Constant<value = float {2.0}>()
        c = Conv(x, w) s = Gather<axis = 1>(c, i) n = Mul(s, two) y = Relu(n) }"""
    proto = foreign(text)
    result, report = fold_batch_norms(proto)
    assert report.refusals == ()
    assert "Mul" not in {node.op_type for node in result.graph.node}
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    assert_close(outputs(result, x=x)[0], outputs(proto, x=x)[0], 1e-6)
