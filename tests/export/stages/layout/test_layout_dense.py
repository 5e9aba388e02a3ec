"""Dense layers next to convolutions: 1x1 Conv, and weights that take a Flatten's shuffle."""

import pytest

from tests.export.graphs import operators
from tests.export.stages.layout.layout_checks import (
    TO_NCHW,
    TO_NHWC,
    X,
    floats,
    integers,
    transform,
)

FLAT = f"a = Transpose{TO_NHWC}(x) f = Reshape(a, s)"


def test_dense_between_convolutions_becomes_one():
    body = f"""a = Transpose{TO_NHWC}(x) b = MatMul(a, w) c = Add(b, bias) d = Transpose{TO_NCHW}(c)
        y = GlobalMaxPool(d)"""
    after = transform(body, "float[N,7,1,1] y", w=floats(3, 7), bias=floats(7))
    assert operators(after) == ["Conv", "Add", "GlobalMaxPool"]


@pytest.mark.parametrize("sizes", ["N,3,4", "N,3,4,5,2"])
def test_dense_of_other_ranks_becomes_a_convolution(sizes):
    rank = sizes.count(",") + 1
    to_last = f"<perm = {[0, *range(2, rank), 1]}>"
    to_second = f"<perm = {[0, rank - 1, *range(1, rank - 1)]}>"
    body = f"a = Transpose{to_last}(x) b = MatMul(a, w) c = Transpose{to_second}(b) y = Relu(c)"
    result = sizes.replace("3", "7", 1)
    after = transform(body, f"float[{result}] y", inputs=f"float[{sizes}] x", w=floats(3, 7))
    assert operators(after) == ["Conv", "Relu"]


def test_dense_stays_where_that_saves_nothing():
    body = f"a = Transpose{TO_NHWC}(x) y = MatMul(a, w)"
    assert operators(transform(body, "float[N,4,5,3] y", w=floats(3, 3))) == ["Transpose", "MatMul"]


def test_dense_in_double_precision_stays():
    body = f"a = Transpose{TO_NHWC}(x) b = Cast<to = 11>(a) c = MatMul(b, b) y = Cast<to = 1>(c)"
    after = transform(body, "float[N,3,3,3] y", inputs="float[N,3,3,3] x")
    assert "Conv" not in operators(after)


ON_THE_WAY = [
    pytest.param("y = MatMul(f, w)", {}, ["Reshape", "MatMul"], id="MatMul"),
    pytest.param("y = Gemm(f, w, v)", {"v": (6,)}, ["Reshape", "Gemm"], id="Gemm"),
    pytest.param("y = Gemm<transB = 1>(f, u)", {"u": (6, 60)}, ["Reshape", "Gemm"], id="transB"),
    pytest.param(
        "g = Relu(f) h = Mul(c, g) i = Add(h, d) y = MatMul(i, w)",
        {"c": (60,), "d": (1, 1)},
        ["Reshape", "Relu", "Mul", "Add", "MatMul"],
        id="elementwise",
    ),
    pytest.param(
        "g = Sigmoid(f) h = Add(f, g) y = MatMul(h, w) z = MatMul(g, w)",
        {},
        ["Reshape", "Sigmoid", "Add", "MatMul", "MatMul"],
        id="branches",
    ),
]


@pytest.mark.parametrize(("body", "shapes", "expected"), ON_THE_WAY)
def test_rows_of_a_matrix_follow_a_flattened_tensor(body, shapes, expected):
    weights = {name: floats(*shape) for name, shape in shapes.items()}
    if "w)" in body or "w," in body:
        weights["w"] = floats(60, 6)
    results = ", ".join(f"float[N,6] {name}" for name in "yz" if f"{name} =" in body)
    after = transform(f"{FLAT} {body}", results, s=integers(-1, 60), **weights)
    assert operators(after) == expected


def test_flatten_is_a_reshape():
    body = f"a = Transpose{TO_NHWC}(x) f = Flatten(a) y = MatMul(f, w)"
    assert operators(transform(body, "float[N,6] y", w=floats(60, 6))) == ["Reshape", "MatMul"]


def test_batch_normalization_takes_the_shuffle():
    body = f"{FLAT} b = BatchNormalization(f, g, g, g, v) y = MatMul(b, w)"
    after = transform(
        body, "float[N,6] y", s=integers(0, 60), g=floats(60), v=floats(60) ** 2, w=floats(60, 6)
    )
    assert operators(after) == ["Reshape", "BatchNormalization", "MatMul"]


@pytest.mark.parametrize(
    ("body", "result"),
    [
        pytest.param("y = Softmax(f)", "float[N,60] y", id="Softmax"),
        pytest.param("y = MatMul(f, w) z = Relu(f)", "float[N,6] y, float[N,60] z", id="an output"),
        pytest.param("y = Gemm<transA = 1>(f, f)", "float[60,60] y", id="transA"),
    ],
)
def test_flattened_tensor_that_others_read_is_transposed_before(body, result):
    after = transform(f"{FLAT} {body}", result, s=integers(-1, 60), w=floats(60, 6))
    assert operators(after).count("Transpose") == 1
    assert operators(after).count("Reshape") == 1


def test_columns_of_a_matrix_lead_to_a_convolution():
    body = f"""b = Gemm(x, w, v) c = Relu(b) d = Mul(c, v) r = Reshape(d, s)
        t = Transpose{TO_NCHW}(r) y = GlobalMaxPool(t)"""
    weights = {"w": floats(6, 60), "v": floats(60), "s": integers(-1, 4, 5, 3)}
    after = transform(body, "float[N,3,1,1] y", inputs="float[N,6] x", **weights)
    assert operators(after) == ["Gemm", "Relu", "Mul", "Reshape", "GlobalMaxPool"]


def test_matrix_takes_a_shuffle_on_both_sides():
    body = f"""{FLAT} b = MatMul(f, w) r = Reshape(b, t) c = Transpose{TO_NCHW}(r)
        y = GlobalMaxPool(c)"""
    weights = {"w": floats(60, 24), "s": integers(-1, 60), "t": integers(-1, 2, 3, 4)}
    after = transform(body, "float[N,4,1,1] y", **weights)
    assert operators(after) == ["Reshape", "MatMul", "Reshape", "GlobalMaxPool"]


def test_flattened_tensor_can_be_parted_again():
    body = f"{FLAT} b = Relu(f) r = Reshape(b, t) c = Transpose{TO_NCHW}(r) y = Neg(c)"
    after = transform(body, "float[N,3,4,5] y", s=integers(-1, 60), t=integers(-1, 4, 5, 3))
    assert operators(after) == ["Reshape", "Relu", "Reshape", "Neg"]


def test_shared_matrix_is_not_changed_for_others():
    body = f"{FLAT} y = MatMul(f, w) z = MatMul(q, w)"
    after = transform(
        body,
        "float[N,6] y, float[N,6] z",
        inputs=f"{X}, float[N,60] q",
        s=integers(-1, 60),
        w=floats(60, 6),
    )
    assert operators(after) == ["Reshape", "MatMul", "MatMul"]
