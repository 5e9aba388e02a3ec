"""ConvTranspose, GlobalMaxPool and Cast for onnx.reference, and every value of a graph in float64.

The transposed convolution of onnx 1.23 writes one channel for each group and gives every group the
first channels' bias; its global maximum is of two dimensions. A Cast between floating-point types
rounds, which the truth must not.
"""

import functools

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from tests.export.graphs import evaluate_in_float64
from tests.export.reference_operators import OPERATORS

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


def _borders(sizes, attributes):
    """Return the size of each axis before padding is cut off, and what is cut off in front."""
    kernel, strides, dilations, auto_pad, pads, output_padding = attributes
    rank = len(sizes)
    full = [
        s * (n - 1) + (k - 1) * d + 1 + o
        for n, k, s, d, o in zip(sizes, kernel, strides, dilations, output_padding, strict=True)
    ]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        total = [f - n * s for f, n, s in zip(full, sizes, strides, strict=True)]
        front = [t // 2 if auto_pad == "SAME_UPPER" else t - t // 2 for t in total]
        return full, front, [n * s for n, s in zip(sizes, strides, strict=True)]
    pads = pads if pads and auto_pad in (None, "NOTSET") else [0] * 2 * rank
    return full, pads[:rank], [f - pads[i] - pads[rank + i] for i, f in enumerate(full)]


class ConvTranspose(OpRun):
    def _run(
        self, x, w, b=None, auto_pad=None, dilations=None, group=None, kernel_shape=None,
        output_padding=None, output_shape=None, pads=None, strides=None,
    ):  # fmt: skip
        n, channels, *sizes = x.shape
        kernel, rank, group = w.shape[2:], len(sizes), group or 1
        strides, dilations = strides or [1] * rank, dilations or [1] * rank
        attributes = (kernel, strides, dilations, auto_pad, pads, output_padding or [0] * rank)
        full, front, final = _borders(sizes, attributes)
        flat = x.reshape(n, group, channels // group, -1)
        spread = w.reshape(group, channels // group, w.shape[1], -1)
        taps = np.einsum("ngip,gioq->ngoqp", flat, spread)
        y = np.zeros((n, group * w.shape[1], *full), x.dtype)
        for q, place in enumerate(np.ndindex(*kernel)):
            ends = zip(place, dilations, strides, sizes, strict=True)
            cut = tuple(slice(k * d, k * d + s * (m - 1) + 1, s) for k, d, s, m in ends)
            y[(slice(None), slice(None), *cut)] += taps[..., q, :].reshape(n, -1, *sizes)
        y = y[(..., *(slice(f, f + m) for f, m in zip(front, final, strict=True)))]
        return (y if b is None else y + b.reshape(-1, *[1] * rank),)


class Cast(OpRun):
    def _run(self, x, to=None, saturate=None, round_mode=None):
        same = to in FLOATS and x.dtype.kind == "f"
        return (x if same else x.astype(onnx.helper.tensor_dtype_to_np_dtype(to)),)


class GlobalMaxPool(OpRun):
    def _run(self, x):
        return (x.max(tuple(range(2, x.ndim)), keepdims=True),)


CORRECTED = [*OPERATORS, ConvTranspose, GlobalMaxPool, Cast]


def run_corrected(proto, inputs):
    """Evaluate a protobuf, which stays as it is, in float64."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    with np.errstate(over="ignore"):  # in an exponential, whose reciprocal is zero
        return evaluate_in_float64(copy, inputs, CORRECTED)


@functools.lru_cache(maxsize=512)
def _evaluator(node, names, opset):
    proto = onnx.NodeProto.FromString(node)
    body = onnx.helper.make_graph(
        [proto],
        "one",
        [onnx.ValueInfoProto(name=name) for name in names],
        [onnx.ValueInfoProto(name=name) for name in proto.output],
    )
    model = onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return ReferenceEvaluator(model, new_ops=list(CORRECTED))


def captured(node):
    """Return the names that the subgraphs of a node read from outside."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    read = [name for graph in graphs for inner in graph.node for name in inner.input]
    made = {name for graph in graphs for inner in graph.node for name in inner.output}
    return [name for name in dict.fromkeys(read) if name and name not in made]


def run_node(node, feeds, opset):
    """Evaluate one node; float arrays are expected in float64."""
    evaluator = _evaluator(node.SerializeToString(), tuple(feeds), opset)
    with np.errstate(over="ignore"):
        results = evaluator.run(None, feeds)
    return [np.asarray(result) for result in results]


def run_nodes(proto, inputs, disturb=lambda array: array):
    """Evaluate a protobuf node by node in float64; return every value by its name.

    Args:
        proto: A model whose subgraphs have no subgraphs or constants.
        inputs: By name.
        disturb: Applied to each floating-point array each time that a node reads it.
    """
    values = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer} | inputs
    values = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in values.items()}
    opset = proto.opset_import[0].version
    for node in proto.graph.node:
        feeds = {name: values[name] for name in (*node.input, *captured(node)) if name}
        exact = node.input[1:] if node.op_type == "Resize" else ()  # they make the shape
        feeds = {
            n: disturb(a) if a.dtype.kind == "f" and n not in exact else a for n, a in feeds.items()
        }
        values.update(zip(node.output, run_node(node, feeds, opset), strict=True))
    return values
