import sys

import numpy as np
import pytest

from keras_bn.export import ExportError
from keras_bn.export.stages.precision.magnitudes import largest_magnitudes
from tests.commands import in_a_process
from tests.export.graphs import graph

# Sixty tensors after each other. Named like the tool, which imports no TensorFlow: that would take
# longer, and more memory, than the rest.
CHAIN = """
import sys
sys.argv[0] = "keras-bn"
import numpy as np, onnx, onnx_ir as ir
from keras_bn.export.stages.precision.magnitudes import largest_magnitudes

nodes = " ".join(f"a{i + 1} = Tanh(a{i})" for i in range(60))
text = "g (float[N] a0) => (float[N] a60) { " + nodes + " }"
model = ir.from_proto(onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 18]>' + text))
model = ir.from_proto(onnx.shape_inference.infer_shapes(ir.to_proto(model)))
assert len(largest_magnitudes(model, [{"a0": np.ones(int(sys.argv[1]), np.float32)}])) == 61
"""


def test_largest_of_all_batches_is_found_in_every_tensor():
    model = graph(
        """g (float[N,2] x, int64[N] i) => (float[N,2] y, float s)
        { a = Abs(x) b = Neg(a) y = Sub(b, a) s = ReduceSum<keepdims=0>(x) }"""
    )
    batches = [{"x": [[1, -3]], "i": [0]}, {"x": [[0.5, 0], [1, 2]], "i": [0, 1]}]
    assert largest_magnitudes(model, batches) == {"x": 3, "a": 3, "b": 3, "y": 6, "s": 3.5}


def test_nothing_to_measure_is_no_error():
    model = graph("g (int64[N] x) => (int64[N] y) { y = Neg(x) }")
    assert largest_magnitudes(model, [{"x": np.int64([1])}]) == {}


@pytest.mark.parametrize("position", [0, 1, 17])
def test_nan_is_found_wherever_it_stands(position):
    model = graph("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    x = np.ones(18, np.float32)
    x[position] = np.nan
    with pytest.raises(ExportError, match="Received: NaN in tensor 'x'"):
        largest_magnitudes(model, [{"x": x}])


def test_batch_that_is_not_finite_is_left_to_the_others():
    model = graph("g (float[N] x) => (float[N] y) { y = Log(x) }")
    batches = [{"x": [np.e]}, {"x": [0.0, 100.0]}, {"x": [np.e**3]}]
    assert largest_magnitudes(model, batches)["y"] == pytest.approx(3)
    with pytest.raises(ExportError, match=r"finite on some samples .* Inf in tensor 'y'"):
        largest_magnitudes(model, batches[1:2])


def test_large_finite_values_are_no_infinities():
    model = graph("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    x = np.full(4, 3e38, np.float32)
    assert largest_magnitudes(model, [{"x": x}])["y"] == pytest.approx(3e38)


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_every_opset_is_measured(opset):
    model = graph("g (float[N] x) => (float[N] y) { y = Neg(x) }", opset)
    assert largest_magnitudes(model, [{"x": [2.0]}]) == {"x": 2, "y": 2}


def test_tensors_are_not_all_held_at_once():
    memory = []
    for size in (2, 2_000_000):
        done, used = in_a_process(sys.executable, "-c", CHAIN, size)
        assert done.returncode == 0, done.stderr
        memory.append(used)
    assert memory[1] - memory[0] < 160e6  # of 480 MB
