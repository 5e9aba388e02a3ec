"""The operators in NumPy against onnx.reference, of every opset that has another form of them."""

import numpy as np
import onnx_ir as ir
import pytest

from keras_bn.export.graph.exact import ExactTensor
from keras_bn.export.stages.constants import evaluation
from keras_bn.export.stages.constants.evaluation import evaluate

F, I = np.float32, np.int64  # noqa: E741


def case(op_type, *arrays, opset=18, **attributes):
    return pytest.param(op_type, arrays, opset, attributes, id=f"{op_type}-{len(arrays)}-{opset}")


W = np.random.default_rng(0).uniform(0.5, 2.0, (2, 1, 3, 4)).astype(F)
ROW, COLUMN = W[0, 0, :1], W[0, 0, :, :1]
FAST = [
    case("Identity", W),
    case("Transpose", W),
    case("Transpose", W, perm=[3, 2, 0, 1]),
    case("Reshape", W, np.array([0, -1, 2], I)),
    case("Flatten", W, axis=2),
    case("Flatten", W, axis=0),
    case("Squeeze", W),
    case("Squeeze", W, np.array([-3], I)),
    case("Squeeze", W, opset=11, axes=[1]),
    case("Unsqueeze", W, np.array([-1, 0], I)),
    case("Unsqueeze", W, opset=11, axes=[1, 3]),
    case("Add", W, ROW),
    case("Sub", ROW, W),
    case("Mul", W, ROW),
    case("Mul", np.array(3.0, F), W),
    case("Mul", ROW, COLUMN),
    case("Div", W, np.array([2.0], F)),
    case("Div", ROW, COLUMN),
    case("Div", np.array(1.0, F), W),
    case("Neg", W),
    case("Sqrt", W),
    case("Reciprocal", W),
    case("Add", np.array([1, 2], I), np.array(3, I)),
    case("Sub", np.array(1, I), np.array(3, I)),
    case("Mul", np.array([2**62], I), np.array([4], I)),
    case("Cast", np.array([1, -1], np.int32), to=7),
    case("Cast", np.array([2**40, 0], I), to=9),
    case("Add", W.astype(np.float64), ROW.astype(np.float64)),
]


def named(node):
    node.outputs[0].name = "y"
    return node


def parts(op_type, arrays, attributes):
    values = [ir.Value(name=f"x{i}") for i in range(len(arrays))]
    return named(ir.node(op_type, values, attributes or None)), [ir.Tensor(a) for a in arrays]


@pytest.mark.parametrize(("op_type", "arrays", "opset", "attributes"), FAST)
def test_fast_operator_is_that_of_the_reference(op_type, arrays, opset, attributes, monkeypatch):
    node, tensors = parts(op_type, arrays, attributes)
    (expected,) = evaluation._by_reference(node, tensors, opset)
    monkeypatch.setattr(evaluation, "_by_reference", None)
    (actual,) = evaluate(node, tensors, opset)
    assert actual.dtype == expected.dtype
    actual, expected = (t.exact if isinstance(t, ExactTensor) else t.numpy()
                        for t in (actual, expected))  # fmt: skip
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("op_type", "arrays", "attributes"),
    [
        pytest.param("Concat", [W, W], {"axis": 1}, id="Concat"),
        pytest.param("Gather", [W, np.array([2, 0], I)], {"axis": 2}, id="Gather"),
        pytest.param("Slice", [W, *(np.array([n], I) for n in (1, 3, 2))], {}, id="Slice"),
    ],
)
def test_copied_elements_stay_in_their_dtype(op_type, arrays, attributes):
    node, tensors = parts(op_type, arrays, attributes)
    (result,) = evaluate(node, tensors, 18)
    assert result.base.dtype == np.float32


def test_constant_gives_its_tensor():
    tensor = ir.tensor(np.arange(3))
    node = ir.node("Constant", [], {"value": tensor})
    (value,) = evaluate(node, [], 18)
    np.testing.assert_array_equal(value.numpy(), tensor.numpy())
    value.name = "c"
    assert tensor.name is None
    (result,) = evaluate(named(ir.node("Constant", [], {"value_float": 0.5})), [], 18)
    assert result.numpy() == 0.5


def test_reshape_that_may_make_empty_dimensions():
    node, tensors = parts("Reshape", [np.zeros((0, 3), F), np.array([3, 0], I)], {"allowzero": 1})
    (result,) = evaluate(node, tensors, 18)
    assert result.shape == (3, 0)


def test_strings_are_left_to_the_reference():
    node = named(ir.node("Identity", [ir.Value(name="x")]))
    (result,) = evaluate(node, [ir.tensor(["a", "b"])], 18)
    assert result.dtype == ir.DataType.STRING


@pytest.mark.parametrize("op_type", ["Sqrt", "Reciprocal"])
def test_result_that_is_not_finite_is_no_error(op_type):
    node, tensors = parts(op_type, [np.array([-1.0, 0.0], F)], {})
    (result,) = evaluate(node, tensors, 18)
    assert not result.is_finite()


@pytest.mark.parametrize("operator", ["Mul", "Div"])
def test_large_weight_is_scaled_without_computing_it(operator, rng):
    weight, scale = rng.normal(size=(16, 16)).astype(F), rng.uniform(1, 2, 16).astype(F)
    node, tensors = parts(operator, [weight, scale], {})
    (result,) = evaluate(node, tensors, 18)
    assert result.base is tensors[0].numpy()
    (negative,) = evaluate(ir.node("Neg", [ir.Value(name="x")]), [result], 18)
    np.testing.assert_array_equal(negative.exact, -result.exact)
    assert negative.base is tensors[0].numpy()


def test_division_by_a_large_weight_is_computed(rng):
    node, tensors = parts("Div", [np.array([2.0], F), rng.uniform(1, 2, (16, 16)).astype(F)], {})
    (result,) = evaluate(node, tensors, 18)
    np.testing.assert_array_equal(result.exact, 2.0 / tensors[1].numpy().astype(np.float64))
