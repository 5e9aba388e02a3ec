"""Constants in disguise: what depends on constants alone is one, whatever its size."""

import numpy as np
import onnx
import pytest

from keras_bn.export import fold_batch_norms
from keras_bn.export.stages.constants import evaluate
from tests.export.foreign_graphs import foreign, outputs
from tests.tolerances import assert_close

WEIGHTS = {"t": (3, 3, 64, 32), "o": (64, 1, 1, 1), **dict.fromkeys(["g", "b", "m", "v"], (64,))}
KERNELS = {
    "one number": """k = Constant<value = int64[4] {64, 32, 3, 3}>()
        w = ConstantOfShape<value = float[1] {0.02}>(k)""",
    "zeros": "k = Constant<value = int64[4] {64, 32, 3, 3}>() w = ConstantOfShape(k)",
    "shape of a constant": """u = Transpose<perm = [2,3,0,1]>(t) k = Shape(u)
        w = ConstantOfShape<value = float[1] {0.02}>(k)""",
    "expanded": "k = Constant<value = int64[4] {64, 32, 3, 3}>() w = Expand(o, k)",
    "tiled": "k = Constant<value = int64[4] {1, 32, 3, 3}>() w = Tile(o, k)",
    "transposed": "w = Transpose<perm = [2,3,0,1]>(t)",
    "a chain": """u = Transpose<perm = [2,3,0,1]>(t) i = Identity(u) j = Identity(i)
        k = Shape(j) z = Constant<value = float {0.5}>() h = Mul(j, z) w = Reshape(h, k)""",
    "cast": "c16 = Cast<to = 10>(t) c32 = Cast<to = 1>(c16) w = Transpose<perm = [2,3,0,1]>(c32)",
}


def network(kernel):
    text = f"""g (float[N,32,6,6] x) => (float[N,64,4,4] y) {{ {kernel}
        c = Conv(x, w) n = BatchNormalization(c, g, b, m, v) y = Relu(n) }}"""
    return foreign(text, weights=WEIGHTS)


@pytest.mark.parametrize("name", KERNELS)
def test_kernel_in_disguise_takes_the_batch_norm_in(name, rng):
    proto = network(KERNELS[name])
    result, report = fold_batch_norms(proto)
    assert [node.op_type for node in result.graph.node] == ["Conv", "Relu"]
    assert report.refusals == ()
    onnx.checker.check_model(result, full_check=True)
    x = rng.normal(size=(2, 32, 6, 6)).astype(np.float32)
    assert_close(outputs(result, x=x)[0], outputs(proto, x=x)[0], 1e-6)


def test_a_bias_of_zeros_as_the_dynamo_export_writes_it(rng):
    """In the dtype of the input, which CastLike reads and nothing else of it."""
    text = """g (float[N,32,6,6] x) => (float[N,64,4,4] y) {
        k = Shape<start = 0, end = 1>(w) one = Constant<value_ints = [1]>() n1 = Expand(k, one)
        zero = Constant<value = float {0}>() like = CastLike(zero, x) bias = Expand(like, n1)
        c = Conv(x, w, bias) n = BatchNormalization(c, g, b, m, v) y = Relu(n) }"""
    proto = foreign(text, 20, weights={**WEIGHTS, "w": (64, 32, 3, 3)})
    result, report = fold_batch_norms(proto, check=True)
    assert [node.op_type for node in result.graph.node] == ["Conv", "Relu"]
    assert report.refusals == ()


@pytest.mark.parametrize("size", [2**14, 2**20, 2**31])
def test_a_bomb_is_left_to_run_time(size):
    """Of what one file may make, all but the first would be more."""
    shape = f"{{{size}, {size}, 1, 1}}"
    text = f"""g (float[N,32,6,6] x) => (float[N,a,b,c] y) {{
        k = Constant<value = int64[4] {shape}>()
        w = ConstantOfShape<value = float[1] {{0.02}}>(k) y = Conv(x, w) }}"""
    proto = foreign(text, weights={})
    result, report = fold_batch_norms(proto)
    assert result is proto
    assert report.folds == ()


def test_large_constants_are_evaluated_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(evaluate, "GROWTH", 4 * 128 * 128)
    nodes = " ".join(
        f"w{i} = ConstantOfShape<value = float[1] {{0.02}}>(k) c{i + 1} = Conv(c{i}, w{i})"
        for i in range(1, 8)
    )
    text = f"""g (float[N,128,1,1] x) => (float[N,128,1,1] y) {{
        k = Constant<value = int64[4] {{128, 128, 1, 1}}>() z = Constant<value = float {{2.0}}>()
        w0 = ConstantOfShape<value = float[1] {{0.02}}>(k) c0 = Conv(x, w0) c1 = Mul(c0, z)
        {nodes} y = Relu(c8) }}"""
    result, _ = fold_batch_norms(foreign(text, weights={}))
    kinds = [node.op_type for node in result.graph.node]
    assert kinds.count("ConstantOfShape") == 4
    assert "Mul" not in kinds
