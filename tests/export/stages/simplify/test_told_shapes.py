"""Ranks and channels of tensors that shape inference does not reach, told by what reads them."""

import pytest

from keras_bn.export import Reason, fold_batch_norms
from tests.export.foreign_graphs import foreign

MINE = ', "mine" : 1'
BN = "BatchNormalization({0}, g, b, m, v)"
CASES = {
    "conv behind": "p = mine.Op(x) n = BatchNormalization(p, g, b, m, v) y = Conv(n, f)",
    "conv before": "p = mine.Op(x) c = Conv(p, f) y = BatchNormalization(c, g, b, m, v)",
    "relu between": (
        "p = mine.Op(x) q = Relu(p) n = BatchNormalization(q, g, b, m, v) y = Conv(n, f)"
    ),
    "two batch norms": (
        "p = mine.Op(x) c = Conv(p, f) n = BatchNormalization(c, g, b, m, v) r = Relu(n)"
        " d = Conv(r, f) y = BatchNormalization(d, g, b, m, v)"
    ),
    "pool between": (
        "p = mine.Op(x) n = BatchNormalization(p, g, b, m, v)"
        " q = AveragePool<kernel_shape = [2,2]>(n) y = Conv(q, f)"
    ),
    "transposed convolution": (
        "p = mine.Op(x) c = ConvTranspose(p, f) y = BatchNormalization(c, g, b, m, v)"
    ),
    "gemm": "p = mine.Op(x) c = Gemm(p, s) y = BatchNormalization(c, g, b, m, v)",
    "gemm, turned": (
        "p = mine.Op(x) c = Gemm<transB = 1>(p, s) y = BatchNormalization(c, g, b, m, v)"
    ),
    "gemm behind": "p = mine.Op(x) n = BatchNormalization(p, g, b, m, v) y = Gemm(n, s)",
    "flatten": (
        "p = mine.Op(x) q = Flatten(p) c = MatMul(q, s) y = BatchNormalization(c, g, b, m, v)"
    ),
    "transpose": (
        "p = mine.Op(x) q = Transpose<perm = [0,3,1,2]>(p) c = Conv(q, f)"
        " y = BatchNormalization(c, g, b, m, v)"
    ),
    "reshape by numbers that are computed": (
        "t = Cast<to = 7>(sizes) p = Reshape(x, t) c = Conv(p, f)"
        " y = BatchNormalization(c, g, b, m, v)"
    ),
    "unique": (
        "o = mine.Op(x) u = Unique<axis = 0>(o) c = Conv(u, f)"
        " y = BatchNormalization(c, g, b, m, v)"
    ),
    "concatenation": (
        "o = mine.Op(x) p = mine.Op(o) q = Concat<axis = 0>(o, p)"
        " n = BatchNormalization(q, g, b, m, v) y = Conv(n, f)"
    ),
}
WEIGHTS = {
    "f": (4, 4, 1, 1),
    "s": (4, 4),
    "k": (4,),
    "a": (4, 1, 1),
    **dict.fromkeys(["g", "b", "m", "v"], (4,)),
}


def network(nodes, opset=17):
    text = f"g (float[N,4,6,6] x, int32[4] sizes) => (float y) {{ {nodes} }}"
    proto = foreign(text, opset, imports=MINE, weights=WEIGHTS)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    return proto


@pytest.mark.parametrize("opset", [9, 13, 17])
@pytest.mark.parametrize("name", CASES)
def test_what_is_behind_an_unknown_shape_folds(name, opset):
    if "Unique" in CASES[name] and opset < 11:
        return
    proto = network(CASES[name], opset)
    result, report = fold_batch_norms(proto)
    assert report.refusals == ()
    kinds = {node.op_type for node in result.graph.node}
    assert not kinds & {"BatchNormalization", "Add", "Mul"}
    assert len(result.graph.value_info) == 0
    assert list(result.graph.input) == list(proto.graph.input)
    for found, given in zip(result.graph.output, proto.graph.output, strict=True):
        if not given.type.tensor_type.HasField("shape"):  # it has the one that was found
            found.type.tensor_type.ClearField("shape")
        assert found == given


def test_what_nothing_tells_stays_unknown():
    proto = network("p = mine.Op(x) n = BatchNormalization(p, g, b, m, v) y = mine.Op(n)")
    (refusal,) = fold_batch_norms(proto)[1].refusals
    assert refusal.reason is Reason.SHAPE_UNKNOWN


def test_a_reader_in_a_branch_tells_nothing():
    proto = network(
        """p = mine.Op(x) n = BatchNormalization(p, g, b, m, v) z = mine.Op(p, f)
        y = If(z) <then_branch = t () => (float q) { q = Conv(n, f) },
                   else_branch = e () => (float r) { r = Identity(n) }>"""
    )
    (refusal,) = fold_batch_norms(proto)[1].refusals
    assert refusal.reason is Reason.SHAPE_UNKNOWN


def test_a_reader_that_never_runs_tells_nothing():
    proto = network(
        "p = mine.Op(x) n = BatchNormalization(p, g, b, m, v) d = Conv(n, f) y = mine.Op(n)"
    )
    (refusal,) = fold_batch_norms(proto)[1].refusals
    assert refusal.reason is Reason.SHAPE_UNKNOWN


@pytest.mark.parametrize("size", [-1, 0])
def test_a_size_of_minus_one_is_unknown(size, rng):
    proto = network("c = Conv(x, f) y = BatchNormalization(c, g, b, m, v)")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    result, report = fold_batch_norms(proto)
    assert len(report.folds) == 1
    assert list(result.graph.input) == list(proto.graph.input)


def test_numbers_that_only_a_shape_reads_may_change(rng):
    """The shape of a tensor stays whatever becomes of its elements."""
    text = """g (float[N,3,8,8] x) => (float[N,4,6,6] y, int64[4] s) {
        c = Conv(x, w) s = Shape(c) n = BatchNormalization(c, g, b, m, v) y = Relu(n) }"""
    result, report = fold_batch_norms(foreign(text))
    assert [node.op_type for node in result.graph.node] == ["Conv", "Shape", "Relu"]
    assert report.refusals == ()


@pytest.mark.parametrize("nodes", ["n = Mul(p, k) y = Gemm(n, s)", "n = Add(p, a) y = Conv(n, f)"])
def test_channels_that_may_be_one_are_not_mapped_one_by_one(nodes):
    """Broadcasting may make the channels that the weights tell."""
    (refusal,) = fold_batch_norms(network(f"p = mine.Op(x) {nodes}"))[1].refusals
    assert refusal.reason is Reason.NOT_PER_CHANNEL


@pytest.mark.parametrize("perm", ["0, 0", "1, 2", "-1, 0"])
def test_what_is_no_permutation_tells_nothing(perm):
    text = "g (float[N,2] x) => (float[A,B] y) {{ p = mine.Op(x) y = Transpose<perm=[{}]>(p) }}"
    assert not fold_batch_norms(foreign(text.format(perm), imports=MINE))[1].folds
