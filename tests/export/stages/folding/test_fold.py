import numpy as np
import onnx_ir as ir
import pytest

from keras_bn.export.stages.folding.fold import fold
from tests.export.graphs import graph, operators, run_float64, run_onnxruntime
from tests.tolerances import FLOAT32, assert_close

BN = "BatchNormalization<epsilon = 0.001>"


def batch_norm_weights(rng, channels):
    gamma, beta, mean = rng.normal(size=(3, channels)).astype(np.float32)
    variance = rng.uniform(0.1, 2.0, channels).astype(np.float32)
    return {"gamma": gamma, "beta": beta, "mean": mean, "variance": variance}


def check(model, expected_operators, rng, folds=None):
    """Assert that the folded graph has these operators and computes the same."""
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    folded, report = fold(model)
    assert operators(folded) == expected_operators
    if folds is not None:
        assert [row.operator for row in report.folds] == folds
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    inputs = {
        v.name: rng.normal(size=v.shape.numpy()).astype(np.float32) for v in model.graph.inputs
    }
    truth = run_float64(model, **inputs)
    for actual, witness, expected in zip(
        run_float64(folded, **inputs), run_onnxruntime(folded, **inputs), truth, strict=True
    ):
        assert_close(actual, expected, 1e-6)  # the folded weights are rounded to float32 once
        assert_close(witness, expected, FLOAT32)
    assert [v.name for v in folded.graph.outputs] == [v.name for v in model.graph.outputs]
    again, second = fold(folded)
    assert operators(again) == expected_operators
    assert second.folds == ()
    return folded, report


CONVOLUTIONS = [
    pytest.param("2,3,8", "4,3,3", "2,4,6", "", id="1-D"),
    pytest.param("2,3,8,8", "4,3,3,3", "2,4,6,6", "", id="2-D"),
    pytest.param("2,3,5,5,5", "4,3,3,3,3", "2,4,3,3,3", "", id="3-D"),
    pytest.param("2,3,8,8", "4,3,3,3", "2,4,3,3", "strides = [2, 2]", id="strided"),
    pytest.param("2,3,8,8", "4,3,3,3", "2,4,4,4", "dilations = [2, 2]", id="dilated"),
    pytest.param("2,3,8,8", "4,3,3,3", "2,4,8,8", "pads = [1, 1, 1, 1]", id="padded"),
    pytest.param("2,4,8,8", "6,2,3,3", "2,6,6,6", "group = 2", id="grouped"),
    pytest.param("2,3,8,8", "3,1,3,3", "2,3,6,6", "group = 3", id="depthwise"),
    pytest.param("2,3,8,8", "6,1,3,3", "2,6,6,6", "group = 3", id="depthwise, multiplier 2"),
]


def shape(text):
    return tuple(int(size) for size in text.split(","))


@pytest.mark.smoke
@pytest.mark.parametrize(("x", "w", "y", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("has_bias", [True, False], ids=["bias", "no bias"])
def test_batch_norm_folds_into_convolution(rng, x, w, y, attributes, has_bias):
    channels = shape(w)[0]
    b, argument = (f", float[{channels}] b", ", b") if has_bias else ("", "")
    weights = {
        "w": rng.normal(size=shape(w)).astype(np.float32),
        **batch_norm_weights(rng, channels),
    }
    if has_bias:
        weights["b"] = rng.normal(size=channels).astype(np.float32)
    attributes = f"<{attributes}>" if attributes else ""
    model = graph(
        f"""g (float[{x}] x, float[{w}] w{b}, float[{channels}] gamma, float[{channels}] beta,
             float[{channels}] mean, float[{channels}] variance) => (float[{y}] y)
        {{ c = Conv{attributes}(x, w{argument}) y = {BN}(c, gamma, beta, mean, variance) }}""",
        **weights,
    )
    check(model, ["Conv"], rng, ["BatchNormalization"])


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", ["", "float[4] b", "float[1,4] b", "float b"])
def test_batch_norm_folds_into_gemm_with_alpha_and_beta(rng, transposed, bias):
    w = rng.normal(size=(4, 3) if transposed else (3, 4)).astype(np.float32)
    weights = {"w": w, **batch_norm_weights(rng, 4)}
    if bias:
        size = {"float[4] b": (4,), "float[1,4] b": (1, 4), "float b": ()}[bias]
        weights["b"] = rng.normal(size=size).astype(np.float32)
    declared, argument = (f", {bias}", ", b") if bias else ("", "")
    model = graph(
        f"""g (float[2,3] x, float[{",".join(map(str, w.shape))}] w{declared}, float[4] gamma,
             float[4] beta, float[4] mean, float[4] variance) => (float[2,4] y) {{
            c = Gemm<alpha = 0.5, beta = 3.0, transB = {transposed}>(x, w{argument})
            y = {BN}(c, gamma, beta, mean, variance)
        }}""",
        **weights,
    )
    check(model, ["Gemm"], rng, ["BatchNormalization"])


@pytest.mark.smoke
def test_matmul_with_bias_and_batch_norm_becomes_gemm(rng):
    weights = {"w": rng.normal(size=(3, 4)).astype(np.float32), **batch_norm_weights(rng, 4)}
    weights["dense/bias"] = rng.normal(size=4).astype(np.float32)
    text = f"""g (float[2,3] x, float[3,4] w, float[4] b, float[4] gamma, float[4] beta,
                  float[4] mean, float[4] variance) => (float[2,4] y) {{
        m = MatMul(x, w) a = Add(b, m) y = {BN}(a, gamma, beta, mean, variance)
    }}"""
    weights["b"] = weights.pop("dense/bias")
    check(graph(text, **weights), ["Gemm"], rng, ["Add", "BatchNormalization"])


def test_matmul_of_rank_3_takes_scale_and_shift_into_kernel_and_bias_add(rng):
    text = """g (float[2,5,3] x, float[3,4] w, float[4] b, float[4] s, float[4] t)
              => (float[2,5,4] y) { m = MatMul(x, w) a = Add(m, b) c = Mul(a, s) y = Add(c, t) }"""
    weights = {n: rng.normal(size=4).astype(np.float32) for n in ("b", "s", "t")}
    weights["w"] = rng.normal(size=(3, 4)).astype(np.float32)
    _, report = check(graph(text, **weights), ["MatMul", "Add"], rng)
    assert [refusal.reason.name for refusal in report.refusals] == ["OPERATOR_HAS_NO_BIAS"]


@pytest.mark.parametrize(
    ("expression", "shape"),
    [
        ("Mul(c, k)", (1, 4, 1, 1)),
        ("Mul(k, c)", (4, 1, 1)),
        ("Add(c, k)", (4, 1, 1)),
        ("Add(k, c)", (1,)),
        ("Sub(c, k)", (1, 4, 1, 1)),
        ("Sub(k, c)", (1, 4, 1, 1)),
        ("Div(c, k)", (1, 4, 1, 1)),
        ("Div(c, k)", ()),
    ],
)
def test_constant_arithmetic_folds_into_convolution(rng, expression, shape):
    sizes = f"[{','.join(map(str, shape))}]" if shape else ""
    text = f"""g (float[2,3,8,8] x, float[4,3,3,3] w, float{sizes} k) => (float[2,4,6,6] y)
               {{ c = Conv(x, w) y = {expression} }}"""
    weights = {"w": rng.normal(size=(4, 3, 3, 3)), "k": rng.uniform(0.5, 2.0, shape)}
    model = graph(text, **{name: array.astype(np.float32) for name, array in weights.items()})
    check(model, ["Conv"], rng)


def test_chain_folds_and_rounds_once(rng):
    text = f"""g (float[2,3,8,8] x, float[4,3,3,3] w, float[4,1,1] k, float[4] gamma,
                  float[4] beta, float[4] mean, float[4] variance) => (float[2,4,6,6] y) {{
        c = Conv(x, w) d = Div(c, k) e = {BN}(d, gamma, beta, mean, variance) f = Mul(e, k)
        y = {BN}(f, gamma, beta, mean, variance)
    }}"""
    weights = {"w": rng.normal(size=(4, 3, 3, 3)), "k": rng.uniform(0.1, 3.0, (4, 1, 1))}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    bn = batch_norm_weights(rng, 4)
    folded, _ = check(graph(text, **weights, **bn), ["Conv"], rng)
    wide = {name: array.astype(np.float64) for name, array in (weights | bn).items()}
    scale = wide["gamma"] / np.sqrt(wide["variance"] + np.float64(np.float32(0.001)))
    expected = wide["w"] * (scale**2).reshape(4, 1, 1, 1)  # the Div and the Mul cancel
    actual = folded.graph.initializers["w"].const_value.numpy()
    np.testing.assert_array_equal(actual, expected.astype(np.float32))


def test_shared_weights_are_copied_not_edited(rng):
    text = f"""g (float[2,3,8,8] x, float[2,3,8,8] z, float[4,3,3,3] w, float[4] b, float[4] gamma,
                  float[4] beta, float[4] mean, float[4] variance)
              => (float[2,4,6,6] y, float[2,4,6,6] plain) {{
        c = Conv(x, w, b) y = {BN}(c, gamma, beta, mean, variance) p = Conv(z, w, b) plain = Relu(p)
    }}"""
    weights = {"w": rng.normal(size=(4, 3, 3, 3)), "b": rng.normal(size=4)}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    folded, _ = check(
        graph(text, **weights, **batch_norm_weights(rng, 4)), ["Conv", "Conv", "Relu"], rng
    )
    np.testing.assert_array_equal(folded.graph.initializers["w"].const_value.numpy(), weights["w"])
    np.testing.assert_array_equal(folded.graph.initializers["b"].const_value.numpy(), weights["b"])


@pytest.mark.parametrize("gamma", [0.0, -1.5])
def test_zero_and_negative_gamma_are_exact(rng, gamma):
    weights = {"w": rng.normal(size=(4, 3, 3, 3)).astype(np.float32), **batch_norm_weights(rng, 4)}
    weights["gamma"] = np.full(4, gamma, np.float32)
    text = f"""g (float[2,3,8,8] x, float[4,3,3,3] w, float[4] gamma, float[4] beta, float[4] mean,
                  float[4] variance) => (float[2,4,6,6] y)
              {{ c = Conv(x, w) y = {BN}(c, gamma, beta, mean, variance) }}"""
    check(graph(text, **weights), ["Conv"], rng)


def test_new_bias_is_named_after_the_kernel(rng):
    text = """g (float[2,3,8,8] x, float[4,3,3,3] w, float[4,1,1] k) => (float[2,4,6,6] y)
              { c = Conv(x, w) y = Add(c, k) }"""
    model = graph(
        text,
        w=rng.normal(size=(4, 3, 3, 3)).astype(np.float32),
        k=rng.normal(size=(4, 1, 1)).astype(np.float32),
    )
    model.graph.initializers["w"].name = "conv/kernel"
    folded, _ = fold(model)
    assert [value.name for value in folded.graph[0].inputs] == ["x", "conv/kernel", "conv/bias"]


@pytest.mark.parametrize("dtype", ["float16", "double"])
def test_other_dtypes_keep_their_dtype(rng, dtype):
    numpy_dtype = np.float16 if dtype == "float16" else np.float64
    text = f"""g ({dtype}[2,3,8,8] x, {dtype}[4,3,3,3] w, {dtype}[4,1,1] k) => ({dtype}[2,4,6,6] y)
              {{ c = Conv(x, w) y = Mul(c, k) }}"""
    w, k = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(4, 1, 1))
    model = graph(text, w=w.astype(numpy_dtype), k=k.astype(numpy_dtype))
    folded, _ = fold(model)
    assert operators(folded) == ["Conv"]
    assert folded.graph.initializers["w"].const_value.numpy().dtype == numpy_dtype


def test_sum_of_a_tensor_with_itself_shares_the_shift(rng):
    text = """g (float[2,3,8,8] x, float[4,3,3,3] w, float[4,1,1] k) => (float[2,4,6,6] y)
              { c = Conv(x, w) s = Sum(c, c, c) y = Add(s, k) }"""
    weights = {"w": rng.normal(size=(4, 3, 3, 3)), "k": rng.normal(size=(4, 1, 1))}
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    check(graph(text, **weights), ["Conv", "Sum"], rng, ["Add"])


@pytest.mark.parametrize("turned", [0, 1])
def test_gemm_whose_weights_stand_on_the_left(rng, turned):
    text = f"""g (float[3,5] x, float[{"3,4" if turned else "4,3"}] w, float[4,1] c, float[3,1] t,
                  float[4,1] k, float[4,1] b) => (float[4,5] y) {{
        a = Add(x, t) p = Gemm<alpha = 0.5, beta = 2.0, transA = {turned}>(w, a, c) s = Mul(p, k)
        y = Add(s, b)
    }}"""
    shapes = {"w": (3, 4) if turned else (4, 3), "t": (3, 1), **dict.fromkeys("ckb", (4, 1))}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    check(graph(text, **weights), ["Gemm"], rng)
