"""ONNX graphs as text, and two witnesses of what they compute."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

HEADER = '<ir_version: 10, opset_import: ["": {opset}]>\n'


def graph(text, opset=18, **weights):
    """Parse `name (inputs and weights) => (outputs) { nodes }`; `weights` become initializers."""
    proto = onnx.parser.parse_model(HEADER.format(opset=opset) + text)
    kept = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    for name, array in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.checker.check_model(proto, full_check=True)
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def operators(model):
    """Return the operators of a graph in order."""
    return [node.op_type for node in model.graph]


def run_float64(model, **inputs):
    """Evaluate a graph with every float32 weight and input in float64."""
    return evaluate_in_float64(ir.to_proto(model), inputs)


def evaluate_in_float64(proto, inputs, operators=()):
    """Likewise for a protobuf, which is changed; `operators` replace those of the evaluator."""
    for tensor in proto.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float64), tensor.name))
    doubles = {
        name: array.astype(np.float64) if array.dtype == np.float32 else array
        for name, array in inputs.items()
    }
    return ReferenceEvaluator(proto, new_ops=list(operators)).run(None, doubles)


def run_onnxruntime(model, **inputs):
    """Evaluate a graph in ONNX Runtime with its own optimisations, folding included, off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)
