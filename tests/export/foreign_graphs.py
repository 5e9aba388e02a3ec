"""ONNX models as other exporters write them, as text, with weights drawn for what has none."""

import copy

import numpy as np
import onnx
from onnx.reference.op_run import OpRun

from tests.export.graphs import evaluate_in_float64

# Weights by name and shape; each statistic that must be positive begins with "v".
WEIGHTS = {"w": (4, 3, 3, 3), "f": (5, 4), "h": (5,)} | dict.fromkeys(["g", "b", "m", "v"], (4,))

# PyTorch: a channel-first network; parameters that are alike are shared through Identity.
TORCH = """
    torch_jit (float[batch,3,8,8] x) => (float[batch,5] y) {
        g2 = Identity(g)
        c = Conv<dilations = [1,1], group = 1, kernel_shape = [3,3], pads = [1,1,1,1],
            strides = [1,1]>(x, w)
        n = BatchNormalization<epsilon = 0.00001, momentum = 0.9>(c, g2, b, m, v)
        r = Relu(n)
        p = GlobalAveragePool(r)
        t = Flatten<axis = 1>(p)
        l = Gemm<alpha = 1.0, beta = 1.0, transB = 1>(t, f, h)
        two = Constant<value = float[1] {2.0}>()
        y = Mul(l, two)
    }"""

# tf2onnx: Transposes around, a kernel that is transposed in the graph, batch norms as Mul and Add.
TENSORFLOW = """
    tf2onnx (float[unk__1,8,8,3] x) => (float[unk__1,8,8,4] y) {
        first = Transpose<perm = [0,3,1,2]>(x)
        hwio = Transpose<perm = [2,3,1,0]>(w)
        oihw = Transpose<perm = [3,2,0,1]>(hwio)
        shape = Constant<value = int64[4] {1,4,1,1}>()
        c = Conv<auto_pad = "SAME_UPPER">(first, oihw)
        scale = Reshape(g, shape)
        shift = Reshape(b, shape)
        s = Mul(c, scale)
        t = Add(s, shift)
        r = Relu(t)
        y = Transpose<perm = [0,2,3,1]>(r)
    }"""


def foreign(
    text, opset=13, ir_version=8, imports="", weights=None, weights_as_inputs=False, numbers=None
):
    """Return an `onnx.ModelProto` without any value_info; `numbers` are weights that are given."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{imports}]>'
    proto = onnx.parser.parse_model(header + text)
    rng = np.random.default_rng(0)
    read = {name for node in proto.graph.node for name in node.input}
    shapes = WEIGHTS if weights is None else weights
    for name, shape in shapes.items():
        if name in read:
            array = rng.uniform(0.5, 2.0, shape).astype(np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
            if weights_as_inputs:
                value = onnx.helper.make_tensor_value_info(name, 1, shape)
                proto.graph.input.append(value)
    for name, number in (numbers or {}).items():
        if name in read:
            scalar = np.array(number, np.float32)
            proto.graph.initializer.append(onnx.numpy_helper.from_array(scalar, name))
    del proto.graph.value_info[:]
    return proto


def conv_bn(**options):
    """Return the smallest model in which a batch norm folds."""
    return foreign(
        """g (float[N,3,8,8] x) => (float[N,4,6,6] y) {
            c = Conv(x, w) y = BatchNormalization(c, g, b, m, v)
        }""",
        **options,
    )


def serialised(proto):
    return proto.SerializeToString(deterministic=True)


class BatchNormalization(OpRun):
    """In inference, at any opset: the evaluator's own of opset 9 takes the batch's statistics."""

    def _run(self, x, scale, bias, mean, var, epsilon=None, **_):
        along = (-1, *(1,) * (x.ndim - 2))
        scale, bias, mean, var = (array.reshape(along) for array in (scale, bias, mean, var))
        return (scale * (x - mean) / np.sqrt(var + epsilon) + bias,)


def outputs(proto, **inputs):
    """Evaluate a model in float64; it stays unchanged."""
    proto = copy.deepcopy(proto)
    graphs = [proto.graph, *proto.functions]
    for graph in graphs:  # which grows
        for node in graph.node:
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]
            for attribute in node.attribute if node.op_type == "Constant" else ():
                _widen(attribute)
    for graph in graphs[1 + len(proto.functions) :]:
        for tensor in graph.initializer:
            _widen_tensor(tensor)
    return evaluate_in_float64(proto, inputs, [BatchNormalization])


def _widen(attribute):
    """Turn the value of a Constant from float32 into float64."""
    if attribute.name in ("value_float", "value_floats"):
        array = np.array(attribute.f if attribute.name == "value_float" else list(attribute.floats))
        attribute.CopyFrom(
            onnx.helper.make_attribute("value", onnx.numpy_helper.from_array(array.astype(float)))
        )
    else:
        _widen_tensor(attribute.t)


def _widen_tensor(tensor):
    if tensor.data_type == onnx.TensorProto.FLOAT:
        array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
