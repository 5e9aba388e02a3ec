"""What `simplify` makes of a graph, and whether it is the same function."""

import numpy as np
import onnx
import onnx_ir as ir

from keras_bn.export.stages.simplify.simplify import simplify
from tests.export.graphs import graph, operators, run_float64
from tests.tolerances import FLOAT64, assert_close

SIZES = ({"N": 1, "H": 6, "W": 5}, {"N": 3, "H": 7, "W": 8})


def check(text, expected, *, opset=18, **weights):
    """Assert that the simplified graph has these operators and is the same function."""
    model = graph(text, opset=opset, **weights)
    after = simplified(model, expected)
    assert_same(after, model)
    return after


def simplified(model, expected):
    """Simplify; assert the operators, and that the input and the surface stay as they are."""
    before = ir.to_proto(model).SerializeToString()
    after = simplify(model)
    assert operators(after) == expected
    assert ir.to_proto(model).SerializeToString() == before
    proto = ir.to_proto(after)
    onnx.checker.check_model(proto, full_check=True)
    assert ir.to_proto(simplify(after)).SerializeToString() == proto.SerializeToString()
    for kind in ("inputs", "outputs"):
        values = zip(getattr(after.graph, kind), getattr(model.graph, kind), strict=True)
        assert all((a.name, a.dtype, a.shape) == (e.name, e.dtype, e.shape) for a, e in values)
    return after


def assert_same(after, model):
    """Compare two graphs in float64 for several sizes of their dynamic dimensions."""
    rng = np.random.default_rng(0)
    for sizes in SIZES:
        inputs = {}
        for value in model.graph.inputs:
            shape = [n if isinstance(n, int) else sizes[n.value] for n in value.shape]
            inputs[value.name] = rng.normal(size=shape).astype(value.dtype.numpy())
        results = zip(run_float64(after, **inputs), run_float64(model, **inputs), strict=True)
        for a, e in results:
            assert_close(a, e, FLOAT64)


def constant_input(model, op_type, index=1):
    """Return an input of the only node of a type, as a list."""
    (node,) = [node for node in model.graph if node.op_type == op_type]
    return node.inputs[index].const_value.numpy().tolist()


def attribute(model, op_type, name):
    (node,) = [node for node in model.graph if node.op_type == op_type]
    return node.attributes[name].value if name in node.attributes else None


def check_stays(text, *, opset=18, **weights):
    """Assert that a graph comes back byte for byte."""
    model = graph(text, opset=opset, **weights)
    before = ir.to_proto(model).SerializeToString()
    assert ir.to_proto(simplify(model)).SerializeToString() == before
