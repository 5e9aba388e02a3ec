"""Keras model -> ONNX graph whose weights are initializers named by their Keras path.

The variables are *arguments* of the traced function (`keras.StatelessScope`), so TensorFlow and
tf2onnx see a graph without a single weight: nothing is frozen, copied or serialised on the way,
and every weight can be attached afterwards under the name that its author knows it by, such as
`conv1/kernel`. Whatever else the function captured is attached in the same way, and so never
becomes an input: TensorFlow's own variables (`resources.py`), and the states that recurrent layers
keep, as they are now. Layers with an ONNX operator of their own leave stand-ins (`stand_ins.py`);
functions inside the model are traced as part of it.

Recurrent layers that stay loops keep their weights as constants, which tf2onnx's rewriters want.

It refuses a model whose inputs are unknown and an operator that cannot be converted. Only this
folder knows tf2onnx.
"""

from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import tensorflow as tf

from keras_bn.interception import eager_functions
from keras_bn.version import __version__

from ...defaults import DEFAULT_OPSET, OPSETS
from ...errors import ExportError, one_line
from ...graph.layer_names import name_after_layers, name_constants
from ...graph.layer_paths import LayerPaths
from ...graph.names import Names
from ...graph.onnx_inference import infer_shapes
from ...signature import Signature, output_names, signature_of
from .plain_names import plain_names
from .recurrent import recurrent_method
from .resources import graph_without_resources, names_of_variables, value_of
from .stand_ins import stand_ins
from .to_onnx import require_dtypes, to_onnx

__all__ = ["trace"]


def trace(
    model: keras.Model,
    *,
    input_signature: Any = None,
    opset: int = DEFAULT_OPSET,
    allow_bfloat16: bool = False,
) -> ir.Model:
    """Trace a model's inference into an ONNX graph.

    Args:
        model: A Keras model.
        input_signature: As for `export_onnx`.
        opset: Version of ONNX's operators, 13 to 18.
        allow_bfloat16: Whether the graph may say float16 where the model computes in bfloat16, for
            a caller who changes the precision anyway.

    Returns:
        A graph with the inputs and outputs that Keras has, in name, order, shape and dtype; every
        variable that matters an initializer, in the layout that Keras keeps it in. Each node has
        in `meta["layer"]` the path of the Keras layer that it comes from.

    Raises:
        ExportError: If `opset` is not one of those, the inputs are unknown, or an operator cannot
            be converted.
    """
    if opset not in OPSETS:
        raise ExportError(
            f"export: `opset` must be in [{OPSETS.start}, {OPSETS.stop - 1}]. "
            f"Received: opset={opset!r}."
        )
    signature = signature_of(model, input_signature)
    for spec in signature.specs:
        if spec.dtype == tf.string:
            raise ExportError(
                "export: the inputs of the model must be numbers. "
                f"Received: {spec.name!r}, of strings. Look tokens up outside the model."
            )
    with plain_names(model):
        return _converted(model, signature, opset, allow_bfloat16)


def _converted(
    model: keras.Model, signature: Signature, opset: int, allow_bfloat16: bool
) -> ir.Model:
    function, variables, outputs = _traced(model, signature)
    layers = LayerPaths(model)
    require_dtypes(function.graph, layers, allow_bfloat16=allow_bfloat16)
    definition, constants = graph_without_resources(function)
    arguments = [tensor for tensor in function.inputs if tensor.op.name not in constants]
    converted = to_onnx(model.name, definition, arguments, function.outputs, layers, opset)
    graph = ir.from_proto(converted).graph
    inputs = [spec.name for spec in signature.specs]
    captures = [pair for pair in function.graph.captures if pair[1].op.name not in constants]
    names = _captured_names(model, function, captures, layers)
    _attach(graph, variables, captures, names, len(inputs))
    _name(graph.inputs, inputs, function.inputs)
    _name(graph.outputs, output_names(model, inputs, outputs), function.outputs)
    _tidy(graph, layers)
    traced = ir.Model(graph, ir_version=10, producer_name="keras-bn", producer_version=__version__)
    if any(v.shape is None or v.dtype is None for node in graph for v in node.outputs if v.name):
        infer_shapes(traced)
    return traced


def _traced(model: keras.Model, signature: Signature) -> tuple[Any, list[Any], Any]:
    """Return the traced function, the variables that are its last arguments, and its outputs.

    The outputs are the structure that the model returns.
    """
    frozen = {id(v) for layer in _loops(model) for v in (*layer.variables, *_states(layer))}
    known = [*model.variables, *_all_states(model, signature)]
    constants = [(v, keras.ops.convert_to_numpy(v)) for v in known if id(v) in frozen]
    variables = [v for v in known if id(v) not in frozen]
    structures: list[Any] = []

    def infer(inputs: list[Any], weights: list[Any]) -> list[Any]:
        mapping = list(zip(variables, weights, strict=True))
        mapping += [(v, tf.constant(value)) for v, value in constants]
        with keras.StatelessScope(state_mapping=mapping):
            structures.append(model(*signature.pack(inputs), training=False))
            return [tf.convert_to_tensor(tensor) for tensor in keras.tree.flatten(structures[-1])]

    weights = [tf.TensorSpec(v.shape, v.dtype) for v in variables]
    unnamed = [tf.TensorSpec(spec.shape, spec.dtype) for spec in signature.specs]
    try:
        with eager_functions(), stand_ins(model):
            function = tf.function(infer, autograph=False).get_concrete_function(unnamed, weights)
    except Exception as e:  # tracing runs the code of every layer
        raise _not_traceable(model, signature, e) from e
    return function, variables, keras.tree.map_structure(lambda _: None, structures[-1])


def _loops(model: keras.Model) -> list[Any]:
    """Return the recurrent layers that have no stand-in."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]
    return [layer for layer in layers if recurrent_method(layer) is None]


def _states(layer: Any) -> list[Any]:
    """Return the variables of a recurrent layer's states, which Keras does not list."""
    return list(keras.tree.flatten(layer.states)) if getattr(layer, "stateful", False) else []


def _all_states(model: keras.Model, signature: Signature) -> list[Any]:
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]
    kept = [layer for layer in layers if _states(layer)]
    if kept and any(spec.shape.rank and spec.shape[0] is None for spec in signature.specs):
        raise ExportError(
            "export: the batch size of a model with a stateful layer must be known. "
            f"Received: layer {kept[0].name!r}, with states of {kept[0]._expected_batch_size} "
            "samples, in a model of any batch size. Give `input_signature` with that size, or "
            "build the layer with stateful=False."
        )
    return [state for layer in kept for state in _states(layer)]


def _not_traceable(model: keras.Model, signature: Signature, error: Exception) -> ExportError:
    advice = "Change the call of that layer, or compute it outside."
    if any(None in spec.shape[1:] for spec in signature.specs):
        advice = f"It may need sizes that are stated: give `input_signature`. {advice}"
    return ExportError(
        "export: TensorFlow must be able to trace the model as a graph. "
        f"Received: model {model.name!r}: {one_line(error).rstrip('.')}. {advice}"
    )


def _tidy(graph: ir.Graph, layers: LayerPaths) -> None:
    """Give nodes their Keras layers and names, and mend what tf2onnx leaves unfinished."""
    for node in graph.all_nodes():
        node.meta["layer"] = layers.of(str(node.name))
        if node.op_type == "Identity":
            node.resize_inputs(1)  # there is a shape behind where TensorFlow had a list
    weights = {name for name, value in graph.initializers.items() if "layers" in value.meta}
    name_after_layers(graph)
    name_constants(graph, weights)


def _captured_names(
    model: keras.Model, function: Any, captures: list[Any], layers: LayerPaths
) -> list[str]:
    """Return a name for whatever a traced function captured: TensorFlow's, behind the layer's."""
    known = names_of_variables(model, function)
    names = []
    for index, (outer, inner) in enumerate(captures):
        readers = [layers.of(operation.name) for operation in inner.consumers()]
        layer, own = next(filter(None, readers), None), known.get(id(outer))
        if own is None:
            names.append(f"captured_{index}")
        else:
            inside = layer is None or own.startswith(f"{layer}/")
            names.append(own if inside else f"{layer}/{own}")
    return names


def _attach(
    graph: ir.Graph, variables: list[Any], captures: list[Any], captured: list[str], first: int
) -> None:
    """Turn the traced arguments after the model's own inputs into initializers.

    Args:
        graph: The graph.
        variables: Keras variables, the first of the arguments.
        captures: What the function captured, outside and inside, the rest of the arguments.
        captured: Names for these.
        first: How many inputs the model has.
    """
    sources = [*variables, *(outer for outer, _ in captures)]
    names = [*(v.path for v in variables), *captured]
    taken = Names(str(value.name) for value in graph.inputs[:first])
    for value, source, wanted in zip(list(graph.inputs[first:]), sources, names, strict=True):
        graph.inputs.remove(value)
        if not value.uses():
            continue
        value.name = taken.new(wanted)
        held = value_of(source) if source.dtype == tf.resource else source
        if held is None:
            raise ExportError(
                "export: a model must keep its state in variables. "
                f"Received: a captured TensorFlow resource {source!r}."
            )
        tensor = ir.Tensor(_array(held), name=value.name)
        value.const_value, value.shape = tensor, ir.Shape(tensor.shape.numpy())
        value.type = ir.TensorType(tensor.dtype)
        value.meta["layers"] = frozenset({wanted.rpartition("/")[0]} - {""})
        graph.initializers[value.name] = value


def _array(source: Any) -> np.ndarray:
    """Return the value of a variable or tensor; it shares the memory where that is possible."""
    tensor = tf.convert_to_tensor(source)
    try:
        return np.asarray(memoryview(tensor))
    except (TypeError, ValueError):  # such as bfloat16, which the buffer protocol does not know
        return np.asarray(keras.ops.convert_to_numpy(source))


def _name(values: Any, names: list[str], tensors: list[Any]) -> None:
    """Give graph inputs or outputs their Keras names, and unknown dimensions readable ones."""
    for value, name, tensor in zip(values, names, tensors, strict=False):
        value.name = name
        if tensor.shape.rank is not None:
            value.shape = ir.Shape(
                size if size is not None else "batch" if axis == 0 else f"{name}_dim{axis}"
                for axis, size in enumerate(tensor.shape)
            )
