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

__all__ = ["OPSET", "input_specs", "output_names", "trace"]

OPSET = 18  # the newest that tf2onnx 1.17 converts to


def input_specs(model: keras.Model) -> Any:
    """Return the inputs of a functional or sequential model as a structure of `tf.TensorSpec`.

    Args:
        model: A Keras model with known inputs.

    Returns:
        The structure that the model is called with; each leaf has the name, shape and dtype of
        a Keras input.

    Raises:
        ExportError: If `model` is no Keras model, or was never built, or is subclassed.
    """
    if not isinstance(model, keras.Model):
        raise ExportError(
            "export: `model` must be a keras.Model. "
            f"Received: model={model!r} of type {type(model).__name__}."
        )
    if not model.built or not hasattr(model, "inputs") or not model.inputs:
        kind = "subclassed" if model.built else "never built"
        raise ExportError(
            "export: `model` must be a built functional or sequential model. "
            f"Received: model {model.name!r}, which is {kind}. Begin it with a keras.Input, or "
            "wrap it: x = keras.Input(shape); model = keras.Model(x, model(x))."
        )
    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(
        lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name), structure
    )


def output_names(model: keras.Model) -> list[str]:
    """Return the names that Keras gives a model's outputs, in order.

    An output is called after the layer that makes it; they are numbered, `output_0`, where that
    name is repeated or is also an input's.
    """
    if isinstance(model, keras.Sequential):
        names = [model.layers[-1].name]
    else:
        names = [str(name) for name in model.output_names]
    inputs = {tensor.name for tensor in model.inputs}
    if len(set(names) - inputs) == len(names):
        return names
    return [f"output_{i}" for i in range(len(names))]


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
