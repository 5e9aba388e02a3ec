"""ONNX graphs in float64: by ONNX Runtime, by stand-ins, and refused where neither is right."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from keras_bn.export.parity.graphs.float64 import STAND_INS, Float64Graph, NoTruthError
from keras_bn.export.parity.graphs.rounding import run_rounded
from keras_bn.export.parity.graphs.widening import coarsest_epsilon
from keras_bn.export.parity.graphs.windows import conv
from tests.export.graphs import run_onnxruntime
from tests.oracles import normalise
from tests.tolerances import FLOAT64, assert_close

IMAGE = "g (float[N,4,H,W] x{}) => (float[a,b,c,d] y) {{ y = {} }}"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 4, 13, 14)).astype(np.float32)


def parse(text, opset=17):
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]>\n{text}')


def both(proto, **inputs):
    """Return the output "y" in float64, and by ONNX Runtime in float32."""
    (narrow,) = run_onnxruntime(ir.from_proto(proto), **inputs)
    return Float64Graph(proto).run(inputs, {"y"})["y"], narrow


def weights(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("arguments", "operator", "others"),
    [
        pytest.param(
            ", float[6,2,3,3] w, float[6] v",
            "Conv<group=2, strides=[2,1], pads=[1,0,2,1], dilations=[1,2]>(x, w, v)",
            {"w": weights(6, 2, 3, 3), "v": weights(6)},
            id="grouped Conv",
        ),
        pytest.param(
            ", float[6,4,3,3] w",
            'Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)',
            {"w": weights(6, 4, 3, 3)},
            id="Conv of SAME_LOWER",
        ),
        pytest.param(
            ", float[4,3,3,2] w, float[6] v",
            "ConvTranspose<group=2, strides=[3,2], pads=[1,0,0,1], output_padding=[1,0]>(x, w, v)",
            {"w": weights(4, 3, 3, 2), "v": weights(6)},
            id="grouped ConvTranspose",
        ),
        pytest.param(
            ", float[4,3,3,3] w",
            'ConvTranspose<auto_pad="SAME_UPPER", strides=[2,2], dilations=[2,1]>(x, w)',
            {"w": weights(4, 3, 3, 3)},
            id="ConvTranspose of SAME_UPPER",
        ),
        pytest.param(
            "", "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x)", {}, id="mean"
        ),
        pytest.param(
            "",
            "AveragePool<kernel_shape=[14,2], strides=[14,2]>(x)",
            {},
            id="mean of a window larger than the input",
        ),
        pytest.param(
            "",
            'AveragePool<kernel_shape=[3,2], auto_pad="SAME_UPPER", count_include_pad=1>(x)',
            {},
            id="mean with padding",
        ),
        pytest.param(
            "",
            "AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)",
            {},
            id="mean of windows that reach out",
        ),
        pytest.param(
            ", float[4] s",
            'Resize<mode="linear">(x, , s)',
            {"s": np.float32([1, 1, 2, 2.5])},
            id="bilinear",
        ),
        pytest.param(
            ", float[4] s",
            'Resize<mode="nearest", nearest_mode="floor">(x, , s)',
            {"s": np.float32([1, 1, 2, 3])},
            id="nearest",
        ),
        pytest.param(
            ", int64[4] s",
            'Resize<mode="cubic">(x, , , s)',
            {"s": np.int64([2, 4, 20, 29])},
            id="bicubic",
        ),
        pytest.param(
            ", float[4] s, float[4] o",
            "InstanceNormalization(x, s, o)",
            {"s": weights(4), "o": weights(4)},
            id="instance norm",
        ),
        *(
            pytest.param("", f"{name}(x)", {}, id=name)
            for name in ("Erf", "HardSwish", "LeakyRelu", "Softplus", "GlobalAveragePool")
        ),
    ],
)
def test_operators_in_float64_are_those_in_float32(arguments, operator, others):
    proto = parse(IMAGE.format(arguments, operator))
    found, narrow = both(proto, x=X, **others)
    assert found.dtype == np.float64
    assert_close(narrow, found)


@pytest.mark.parametrize("opset", [9, 13, 15])
def test_batch_norm_of_every_opset_is_in_inference(opset):
    names = ("s", "o", "m", "v")
    text = IMAGE.format("".join(f", float[4] {n}" for n in names), "BatchNormalization(x,s,o,m,v)")
    scale, offset, mean = weights(4), weights(4), weights(4)
    variance = np.exp(weights(4))
    found, _ = both(parse(text, opset), x=X, s=scale, o=offset, m=mean, v=variance)
    columns = (np.float64(a).reshape(-1, 1, 1) for a in (mean, variance, scale, offset))
    assert_close(found, normalise(np.float64(X), *columns, np.float32(1e-5)), FLOAT64)


def test_whole_convolution_is_more_exact_than_float32():
    proto = parse(IMAGE.format(", float[4,4,3,3] w", "Conv(x, w)"))
    w = weights(4, 4, 3, 3)
    found = Float64Graph(proto).run({"x": X, "w": w}, {"y"})["y"]
    window = np.float64(X[1, :, 3:6, 4:7])
    assert found[1, 2, 3, 4] == pytest.approx((window * np.float64(w[2])).sum(), rel=1e-13)


def test_bodies_constants_and_casts_are_widened():
    proto = parse("""g (float[N,3] x, bool c) => (float[N,3] y) {
        k = Constant<value_float = 0.1> ()
        h = Cast<to = 10> (x)
        f = Cast<to = 1> (h)
        y = If (c) <then_branch = t () => (z) { j = Constant<value = float{0.1}>() z = Mul(f, j) },
                    else_branch = e () => (z) { z = Mul(f, k) }>
    }""")
    x = np.float32([[1, 2, 1e-9]])
    for condition in (True, False):
        found = Float64Graph(proto).run({"x": x, "c": np.array(condition)}, {"y"})["y"]
        assert_close(found, np.float64(x) * np.float64(np.float32(0.1)), FLOAT64)


def test_functions_are_looked_into():
    proto = parse("g (float[N] x) => (float[N] y) { y = local.twice(x) }").SerializeToString()
    model = onnx.ModelProto.FromString(proto)
    node = onnx.helper.make_node("Add", ["a", "a"], ["b"])
    opsets = [onnx.helper.make_opsetid("", 17)]
    model.functions.append(
        onnx.helper.make_function("local", "twice", ["a"], ["b"], [node], opsets)
    )
    model.opset_import.append(onnx.helper.make_opsetid("local", 1))
    assert Float64Graph(model).run({"x": X[0, 0, 0]}, {"y"})["y"] == pytest.approx(2 * X[0, 0, 0])


def test_operator_of_another_domain_has_no_truth():
    proto = parse("g (float[N] x) => (float[N] y) { z = Relu(x) y = acme.Own(z) }")
    proto.opset_import.append(onnx.helper.make_opsetid("acme", 1))
    with pytest.raises(NoTruthError, match="Own 'y' has no float64"):
        Float64Graph(proto).run({"x": X[0, 0, 0]}, {"y"})


def test_reference_that_is_wrong_is_no_truth(monkeypatch):
    monkeypatch.setitem(STAND_INS, "Conv", lambda x, w, **_: 2 * conv(x, w))
    monkeypatch.setattr(ReferenceEvaluator, "run", lambda *_: [np.zeros((2, 4, 11, 12))])
    proto = parse(IMAGE.format(", float[4,4,3,3] w", "Conv(x, w)"))
    with pytest.raises(NoTruthError, match="other values than ONNX Runtime"):
        Float64Graph(proto).run({"x": X, "w": weights(4, 4, 3, 3)}, {"y"})


def test_coarsest_dtype_tells_epsilon():
    assert coarsest_epsilon(parse("g (float[N] x) => (float[N] y) { y = Relu(x) }")) == 2**-23
    text = "g (float[N] x) => (float[N] y) { h = Cast<to = 10> (x) y = Cast<to = 1> (h) }"
    assert coarsest_epsilon(parse(text)) == 2**-10


@pytest.mark.parametrize(
    ("nodes", "epsilon"),
    [
        pytest.param("w = Cast<to = 1> (h) y = Mul(x, w)", 2**-23, id="only cast"),
        pytest.param("w = Cast<to = 1> (h) a = Neg(h) y = Mul(x, w)", 2**-10, id="computed with"),
    ],
)
@pytest.mark.parametrize("node", [False, True])
def test_a_constant_that_is_cast_is_no_dtype_to_compute_in(nodes, epsilon, node):
    constant = "h = Constant<value = float16[1] {1}>() " if node else ""
    weight = "" if node else "<float16[1] h = {1}>"
    text = f"g (float[N] x) => (float[N] y) {weight} {{ {constant}{nodes} }}"
    assert coarsest_epsilon(parse(text)) == epsilon


def test_rounding_at_random_is_as_large_as_epsilon_and_the_same_again():
    proto = parse(IMAGE.format(", float[4,4,3,3] w", "Conv(x, w)"))
    graph, batch = Float64Graph(proto), {"x": X, "w": weights(4, 4, 3, 3)}
    truth = graph.run(batch, {"y"})["y"]
    draws, again = (run_rounded(graph, [batch], {"y"}, 1e-6) for _ in range(2))
    errors = [np.abs(run[0]["y"] - truth).max() / np.abs(truth).max() for run in draws]
    assert all(1e-7 < error < 4e-6 for error in errors)
    assert np.array_equal(draws[0][0]["y"], again[0][0]["y"])


def test_mean_of_equal_values_is_rounded_by_the_order_of_its_additions():
    proto = parse("g (float[N,M] x) => (float[N,1] y) { y = ReduceMean<axes = [1]> (x) }")
    batch = {"x": np.full((1, 9216), 0.7371, np.float32)}
    draws = run_rounded(Float64Graph(proto), [batch], {"y"}, 2.0**-23)
    assert max(abs(run[0]["y"].item() - 0.7371) for run in draws) > 1e-5


def test_what_is_no_array_has_no_float64():
    graph = Float64Graph(parse("g (float[2] x) => (float[2] y) { y = Add(x, sparse) }"))
    with pytest.raises(NoTruthError, match="no array is called 'sparse'"):
        graph.run({"x": np.ones(2)}, {"y"})
