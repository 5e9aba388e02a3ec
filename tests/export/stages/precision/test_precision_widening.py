import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn import BatchNormalization
from keras_bn.export.stages.constants.evaluate import evaluate_constants
from keras_bn.export.stages.precision.set_precision import set_precision
from keras_bn.export.stages.tracing.trace import trace
from tests.export.graphs import graph, operators, run_float64, run_onnxruntime
from tests.tolerances import HALF, assert_close

# In ONNX text a float16 tensor is written by its bits: 16384 is 2.0 and 16896 is 3.0.
FLOAT16, BFLOAT16, FLOAT32 = ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT


def to_float32(model):
    """Widen a graph; the result is valid, its input unchanged, and nothing is in half precision."""
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    result, report = set_precision(model, "float32")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert not {FLOAT16, BFLOAT16} & dtypes(result)
    assert report.precision == "float32"
    return result


def dtypes(model):
    """Return the dtypes of all values, those in subgraphs too."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph.all_nodes():
        values += node.outputs
    return {value.dtype for value in values}


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def in_half(array, dtype):
    return np.asarray(array).astype(dtype.numpy())


@pytest.mark.parametrize(("name", "dtype"), [("float16", FLOAT16), ("bfloat16", BFLOAT16)])
def test_half_precision_becomes_float32(name, dtype):
    w, x = in_half(draw(3, 2), dtype), draw(4, 3)
    model = graph(
        f"""g (float[N,3] x, {name}[3,2] w) => ({name}[N,2] y, float[N,2] z)
        {{ a = Cast<to={int(dtype)}>(x)  y = MatMul(a, w)  b = Cast<to=1>(y)  z = Relu(b) }}""",
        w=w,
    )
    result = to_float32(model)
    assert operators(result) == ["MatMul", "Relu"]
    assert [v.name for v in result.graph.outputs] == ["y", "z"]
    np.testing.assert_array_equal(
        result.graph.initializers["w"].const_value.numpy(), w.astype(np.float32)
    )
    assert_close(run_onnxruntime(result, x=x)[0], x @ w.astype(np.float32))


def test_outputs_of_one_tensor_keep_their_names():
    model = graph(
        "g (float[N] x) => (float[N] y, float[N] z) { a = Neg(x) y = Identity(a) z = Identity(a) }"
    )
    assert [v.name for v in to_float32(model).graph.outputs] == ["y", "z"]


def test_float32_graph_is_unchanged_but_for_casts_that_do_nothing():
    model = graph(
        "g (float[2] x, int64[2] i) => (float[2] y, float[2] z, int64[2] j)"
        "{ a = Cast<to=1>(x) y = Relu(a) z = Cast<to=1>(x) j = Cast<to=7>(i) }"
    )
    result = to_float32(model)
    assert "Relu" in operators(result)
    x, i = draw(2), np.int64([1, 2])
    for found, expected in zip(
        run_onnxruntime(result, x=x, i=i), run_onnxruntime(model, x=x, i=i), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_types_in_attributes_become_float32():
    model = graph(
        """g (int64[1] n, float16[N] x) => (float16[M] y, float16[N] z) {
        c = ConstantOfShape<value=float16[1]{16384}>(n)
        k = Constant<value=float16[1]{16896}>()  y = Mul(c, k)
        r = RandomUniform<dtype=10, shape=[1], low=1.0, high=1.5>()  z = Mul(x, r) }"""
    )
    result = to_float32(model)
    y, z = run_onnxruntime(result, n=np.int64([3]), x=np.ones(2, np.float32))
    assert y.tolist() == [6.0] * 3
    assert (z >= 1).all()


def test_subgraphs_become_float32():
    model = graph(
        """g (float16[N] x, bool b) => (float16[N] y) {
        y = If(b) <
            then_branch = t () => (float16[N] p) { k = Constant<value=float16[1]{16384}>()
                                                   p = Mul(x, k) },
            else_branch = e () => (float16[N] r) { c = Cast<to=1>(x) r = Cast<to=10>(c) }
        > }"""
    )
    result = to_float32(model)
    x = draw(3)
    assert run_onnxruntime(result, x=x, b=np.array(True))[0].tolist() == (2 * x).tolist()
    assert run_onnxruntime(result, x=x, b=np.array(False))[0].tolist() == x.tolist()


def test_other_casts_stay():
    model = graph(
        """g (float16[N] x) => (int64[N] i, bool[N] b, float[N] y)
        { i = Cast<to=7>(x) b = Cast<to=9>(x) h = Cast<to=10>(i) y = Cast<to=1>(h) }"""
    )
    result = to_float32(model)
    assert operators(result) == ["Cast"] * 3
    i, b, y = run_onnxruntime(result, x=np.float32([1.5, 0.0]))
    assert (i.tolist(), b.tolist(), y.tolist()) == ([1, 0], [True, False], [1.0, 0.0])


def test_float64_becomes_float32_too():
    model = graph(
        """g (double[N, 2] x) => (double[N, 3] y, float[N, 3] z)
        { a = MatMul(x, w) y = Add(a, b) z = Cast<to=1>(y) }""",
        w=np.full((2, 3), 1 / 3),
        b=np.zeros(3),
    )
    result = to_float32(model)
    values = [*result.graph.inputs, *result.graph.outputs, *result.graph.initializers.values()]
    assert {value.dtype for value in values} == {ir.DataType.FLOAT}
    y, z = run_onnxruntime(result, x=np.float32([[3.0, 6.0]]))
    np.testing.assert_array_equal(y, z)
    assert_close(y, [[3.0, 3.0, 3.0]])


def test_node_of_another_domain_keeps_its_half_precision_between_casts():
    proto = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["": 18, "com.example": 1]>
        g (float16[N] x) => (float16[N] b, float16[N] y) <float16[N] a, float16[N] b>
        { a = Relu(x) b = com.example.Custom(a) y = Neg(b) }"""
    )
    model = ir.from_proto(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    result, _ = set_precision(model, "float32")
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert operators(result) == ["Relu", "Cast", "Custom", "Cast", "Neg"]
    custom = next(node for node in result.graph if node.op_type == "Custom")
    assert [v.dtype for v in (*custom.inputs, *custom.outputs)] == [FLOAT16] * 2
    assert [(v.name, v.dtype) for v in result.graph.outputs] == [("b", FLOAT32), ("y", FLOAT32)]


def test_shared_initializer_of_the_input_graph_is_not_edited():
    w = in_half(draw(2), FLOAT16)
    model = graph(
        "g (float16[2] x, float16[2] w) => (float16[2] y) { a = Mul(x, w) y = Add(a, w) }", w=w
    )
    result = to_float32(model)
    assert model.graph.initializers["w"].const_value.dtype is FLOAT16
    assert result.graph.initializers["w"].dtype is FLOAT32


@pytest.fixture
def mixed_model(randomised):
    """A network in mixed_float16, with its last layer in float32 as Keras advises."""
    x = keras.Input((8, 8, 3), name="x")
    y = keras.layers.Conv2D(4, 3, dtype="mixed_float16", name="conv")(x)
    y = BatchNormalization(dtype="mixed_float16", name="bn")(y)
    y = keras.layers.GlobalMaxPooling2D(dtype="mixed_float16")(keras.layers.ReLU()(y))
    y = keras.layers.Dense(3, dtype="float32", name="dense")(y)
    return randomised(keras.Model(x, y))


def test_mixed_keras_model_computes_what_it_would_in_float32(mixed_model):
    result = to_float32(trace(mixed_model))
    x = draw(2, 8, 8, 3)
    wide = keras.models.clone_model(
        mixed_model,
        clone_function=lambda layer: layer.__class__.from_config(
            {**layer.get_config(), "dtype": "float32"}
        ),
    )
    wide.set_weights(mixed_model.get_weights())
    (found,) = run_onnxruntime(result, x=x)
    assert_close(found, wide(x))
    assert np.abs(found - mixed_model(x)).max() > 1e-5  # which rounds on the way


def test_mixed_keras_model_computes_in_float16(mixed_model):
    traced = evaluate_constants(trace(mixed_model))
    x = draw(2, 8, 8, 3)
    result, report = set_precision(traced, "float16", [{"x": x}])
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert report.float16 > 0
    assert [v.dtype for v in result.graph.outputs] == [FLOAT32]
    assert_close(run_onnxruntime(result, x=x)[0], mixed_model(x), 2 * HALF["float16"])


def test_half_precision_inputs_and_outputs_keep_their_dtype_in_float16():
    model = graph(
        """g (float16[N,3] x, bfloat16[N,3] b, float16[3,3] w)
        => (float16[N,3] y, float16[N,3] z, bfloat16[N,3] c) {
        a = MatMul(x, w)  y = Softmax(a)  z = Relu(a)  c = Tanh(b) }""",
        w=in_half(draw(3, 3), FLOAT16),
    )
    x = draw(2, 3)
    result, _ = set_precision(model, "float16", [{"x": x, "b": x}])
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    values = [*result.graph.inputs, *result.graph.outputs]
    assert [(v.name, v.dtype) for v in values] == [
        ("x", FLOAT16),
        ("b", BFLOAT16),
        ("y", FLOAT16),
        ("z", FLOAT16),
        ("c", BFLOAT16),
    ]
    assert operators(result).index("MatMul") < operators(result).index("Softmax")
    assert next(n for n in result.graph if n.op_type == "MatMul").inputs[0].name == "x"


def test_widened_graph_is_what_float64_says():
    w = in_half(draw(3, 3), FLOAT16)
    model = graph(
        "g (float16[N,3] x, float16[3,3] w) => (float16[N,3] y) { a = MatMul(x, w) y = Tanh(a) }",
        w=w,
    )
    result, x = to_float32(model), draw(5, 3)
    assert_close(run_onnxruntime(result, x=x)[0], run_float64(result, x=x)[0])


def test_constants_that_are_outputs_keep_their_name_and_dtype_in_float16():
    model = graph(
        """g (float[N,3] x, float16[3] w, float[3] v, bfloat16[3] b)
        => (float[N,3] y, float16[3] w, float[3] v, bfloat16[3] b)
        { a = Mul(x, v) y = Relu(a) }""",
        w=in_half(draw(3), FLOAT16),
        v=draw(3),
        b=in_half(draw(3), BFLOAT16),
    )
    result, _ = set_precision(model, "float16", [{"x": draw(2, 3)}])
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert [(v.name, v.dtype) for v in result.graph.outputs] == [
        ("y", FLOAT32),
        ("w", FLOAT16),
        ("v", FLOAT32),
        ("b", BFLOAT16),
    ]
    for name in "wb":
        value = result.graph.initializers[name].const_value.numpy()
        np.testing.assert_array_equal(value, model.graph.initializers[name].const_value.numpy())


def test_cast_of_integers_read_in_two_half_precisions_is_replaced_once():
    model = graph(
        """g (int64[3] i, float[N,3] x) => (float[N,3] y, bfloat16[3] f)
        { c = Cast<to=1>(i) f = Cast<to=16>(i) y = Mul(x, c) }"""
    )
    i = np.int64([1, 2, 3])
    result, report = set_precision(model, "float16", [{"x": draw(2, 3), "i": i}])
    onnx.checker.check_model(ir.to_proto(result), full_check=True)
    assert operators(result).count("Cast") == 4  # of i twice, of x, and of y
    assert [(v.name, v.dtype) for v in result.graph.outputs] == [("y", FLOAT32), ("f", BFLOAT16)]
    assert report.float16 == 1
