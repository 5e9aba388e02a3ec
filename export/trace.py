"""Keras model -> ONNX graph whose weights are initializers named by their Keras path.

The variables are *arguments* of the traced function (`keras.StatelessScope`), so TensorFlow and
tf2onnx see a graph without a single weight: nothing is frozen, copied or serialised on the way,
and every weight can be attached afterwards under the name that its author knows it by, such as
`conv1/kernel`. Eager tensors that the model captured are attached in the same way.

This is the only file that imports tf2onnx. It refuses a model whose inputs are unknown and an
operator that tf2onnx cannot convert.
"""

from typing import Any

import keras
import onnx
import onnx_ir as ir
import tensorflow as tf
from tf2onnx.tfonnx import process_tf_graph

from keras_bn import __version__

from .errors import ExportError
from .naming import Names
from .shapes import captured_logs, infer_shapes
from .signature import input_specs, output_names

__all__ = ["OPSET", "trace"]

OPSET = 18  # the newest that tf2onnx 1.17 converts to


def trace(model: keras.Model) -> ir.Model:
    """Trace a model's inference into an ONNX graph.

    Args:
        model: A built functional or sequential Keras model.

    Returns:
        A graph of opset `OPSET`: inputs and outputs as in Keras, in name, order, shape and dtype;
        every variable an initializer, in the layout that Keras keeps it in.

    Raises:
        ExportError: If the inputs are unknown or an operator cannot be converted.
    """
    specs = input_specs(model)
    variables = list(model.variables)

    def infer(inputs: Any, weights: list[Any]) -> list[Any]:
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            outputs: list[Any] = keras.tree.flatten(model(inputs, training=False))
            return outputs

    try:
        function = tf.function(infer, autograph=False).get_concrete_function(
            specs, [tf.TensorSpec(v.shape, v.dtype) for v in variables]
        )
    except Exception as e:  # tracing runs the code of every layer
        raise _not_convertible(model, f"TensorFlow cannot trace it: {type(e).__name__}: {e}") from e
    if any(t.dtype == tf.bfloat16 for op in function.graph.get_operations() for t in op.outputs):
        raise _not_convertible(model, "it computes in bfloat16, which tf2onnx turns into float16")
    graph = ir.from_proto(_convert(function, model)).graph
    model_inputs = [spec.name for spec in keras.tree.flatten(specs)]
    _attach(graph, function, variables, len(model_inputs))
    _name(graph.inputs, model_inputs, function.inputs)
    _name(graph.outputs, output_names(model), function.outputs)
    traced = ir.Model(graph, ir_version=10, producer_name="keras-bn", producer_version=__version__)
    infer_shapes(traced)
    return traced


def _convert(function: Any, model: keras.Model) -> Any:
    """Run tf2onnx on a weightless graph; its warnings become the text of an error, if any."""
    with tf.Graph().as_default() as graph, captured_logs() as messages:
        tf.import_graph_def(function.graph.as_graph_def(add_shapes=True), name="")
        try:
            proto = process_tf_graph(
                graph,
                opset=OPSET,
                input_names=[tensor.name for tensor in function.inputs],
                output_names=[tensor.name for tensor in function.outputs],
            ).make_model(model.name)
        except Exception as e:  # tf2onnx raises whatever its handlers meet
            said = "; ".join(messages) or f"{type(e).__name__}: {e}"
            raise _not_convertible(model, f"tf2onnx says: {said}") from e
    # tf2onnx only logs an operator that it does not know, and leaves it in the graph.
    unknown = [f"{n.op_type} at {n.name}" for n in proto.graph.node if not _is_onnx(n)]
    if unknown:
        raise _not_convertible(model, f"no equivalent of {', '.join(unknown)}")
    return proto


def _is_onnx(node: Any) -> bool:
    return node.domain not in ("", "ai.onnx") or onnx.defs.has(node.op_type)


def _not_convertible(model: keras.Model, found: str) -> ExportError:
    found = " ".join(found.split())[:500].rstrip(".")
    return ExportError(
        "export: every TensorFlow operator of the model must have an ONNX equivalent in tf2onnx. "
        f"Received: model {model.name!r}: {found}. Replace that layer, or compute it outside."
    )


def _attach(graph: ir.Graph, function: Any, variables: list[Any], first: int) -> None:
    """Turn the traced arguments after the model's own inputs into initializers."""
    captured = [external for external, _ in function.graph.captures]
    sources = [*variables, *captured]
    names = [v.path for v in variables] + [f"captured_{i}" for i in range(len(captured))]
    taken = Names(str(value.name) for value in graph.inputs[:first])
    for value, source, wanted in zip(list(graph.inputs[first:]), sources, names, strict=True):
        if source.dtype == tf.resource:
            raise ExportError(
                "export: a model must keep its state in Keras variables. "
                f"Received: a captured TensorFlow resource {source!r}."
            )
        name = taken.new(wanted)
        graph.inputs.remove(value)
        value.name = name
        value.const_value = ir.tensor(keras.ops.convert_to_numpy(source), name=name)
        value.meta["layers"] = frozenset({wanted.rpartition("/")[0]} - {""})
        graph.initializers[name] = value


def _name(values: Any, names: list[str], tensors: list[Any]) -> None:
    """Give graph inputs or outputs their Keras names, and unknown dimensions readable ones."""
    for value, name, tensor in zip(values, names, tensors, strict=False):
        value.name = name
        value.shape = ir.Shape(
            size if size is not None else "batch" if axis == 0 else f"{name}_dim{axis}"
            for axis, size in enumerate(tensor.shape)
        )
