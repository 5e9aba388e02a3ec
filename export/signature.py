"""What a model takes and gives: the structure, names, shapes and dtypes of its inputs and outputs.

A functional or sequential model knows its inputs. A subclassed one was called at least once, and
its inputs are those of that call with a free batch dimension; or the caller says what they are.
"""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from .errors import ExportError, one_line

__all__ = ["Signature", "input_specs", "output_names", "signature_of"]


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a model is called with.

    Attributes:
        arguments: For each positional argument of the model's `call` a structure of
            `tf.TensorSpec`, every one with a name of its own.
    """

    arguments: tuple[Any, ...]

    @property
    def specs(self) -> list[Any]:
        """All inputs, in order."""
        specs: list[Any] = keras.tree.flatten(self.arguments)
        return specs

    @property
    def is_batch_free(self) -> bool:
        """Whether every input takes any number of samples."""
        return all(spec.shape.rank and spec.shape[0] is None for spec in self.specs)

    def pack(self, tensors: list[Any]) -> tuple[Any, ...]:
        """Return positional arguments that hold one tensor for each input."""
        packed: tuple[Any, ...] = keras.tree.pack_sequence_as(self.arguments, tensors)
        return packed


def signature_of(model: keras.Model, input_signature: Any = None) -> Signature:
    """Return what a model is called with.

    Args:
        model: A Keras model. One that was never built is built here if `input_signature` is given.
        input_signature: As in Keras's `model.export`: a list with a structure for each positional
            argument, whose leaves are `keras.InputSpec`, `tf.TensorSpec`, `keras.KerasTensor` or
            arrays (whose first dimension is taken to be the free batch). None asks the model.

    Raises:
        ExportError: If `model` is no Keras model, or its inputs are unknown.
        ExportError: If `input_signature` has a leaf of another type or without a rank, or does not
            fit the model.
    """
    if not isinstance(model, keras.Model):
        raise ExportError(
            "`model` must be a keras.Model. "
            f"Received: model={model!r} of type {type(model).__name__}."
        )
    if input_signature is not None:
        return _given(model, input_signature)
    if model.built and getattr(model, "inputs", None):
        if not isinstance(model, keras.Sequential):
            return Signature((keras.tree.map_structure(_spec, model.input),))
        spec = _spec(model.inputs[0])  # built by its first call, it has the batch size of that
        if not _is_stateful(model):
            spec = tf.TensorSpec([None, *spec.shape[1:]], spec.dtype, name=spec.name)
        return Signature((spec,))
    shapes = getattr(model, "_build_shapes_dict", None) if model.built else None
    if not shapes or isinstance(model, keras.Sequential):
        raise ExportError(
            "the inputs of `model` must be known. "
            f"Received: model {model.name!r}, which was never called. Call it on a batch, begin it "
            "with a keras.Input, or give `input_signature=[keras.InputSpec(shape=..., dtype=...)]`."
        )
    parameters = model._call_signature.parameters.values()
    needed = [
        p.name for p in parameters if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    if len(needed) > len(shapes):
        raise ExportError(
            "`input_signature` must be given for a model whose call needs several arguments. "
            f"Received: model {model.name!r}, whose call needs {needed}. Give a spec for each: "
            "input_signature=[keras.InputSpec(shape=..., dtype=...), ...]."
        )
    keeps = _is_stateful(model)
    specs = (_of_shape(shape, model.input_dtype, keeps) for shape in shapes.values())
    return _named(model, tuple(specs))


def input_specs(model: keras.Model) -> Any:
    """Return the inputs of a functional or sequential model as a structure of `tf.TensorSpec`.

    Raises:
        ExportError: If `model` is no Keras model, was never built, or is subclassed.
    """
    if isinstance(model, keras.Model) and not (model.built and getattr(model, "inputs", None)):
        kind = "subclassed" if model.built else "never built"
        raise ExportError(
            "`model` must be a built functional or sequential model. "
            f"Received: model {model.name!r}, which is {kind}. Begin it with a keras.Input, or "
            "wrap it: x = keras.Input(shape); model = keras.Model(x, model(x))."
        )
    return signature_of(model).arguments[0]


def output_names(model: keras.Model, inputs: list[str], outputs: Any = None) -> list[str]:
    """Return the names of a model's outputs, in order.

    The outputs of a dict are called by their keys, others after the layer that makes them. They are
    numbered, `output_0`, where that is unknown, repeated, or also an input's name.

    Args:
        model: The model.
        inputs: Names of its inputs.
        outputs: What the model returned, or that structure; None where the model knows it.
    """
    if isinstance(model, keras.Sequential) and model.layers:
        names = [model.layers[-1].name]
    elif isinstance(model, keras.Model) and getattr(model, "outputs", None):
        outputs = model.output
        names = [str(name) for name in model.output_names]
    else:
        names = []
    leaves = keras.tree.flatten(outputs)
    if isinstance(outputs, dict) and len(outputs) == len(leaves):
        names = keras.tree.flatten({key: str(key) for key in outputs})
    count = len(leaves) or len(names)
    if len(set(names) - set(inputs)) == count:
        return names
    return [f"output_{i}" for i in range(count)]


def _given(model: keras.Model, input_signature: Any) -> Signature:
    structure = input_signature if isinstance(input_signature, list | tuple) else [input_signature]
    arguments = tuple(keras.tree.map_structure(_spec, argument) for argument in structure)
    specs = keras.tree.flatten(arguments)
    if not specs:
        raise ExportError(
            "`input_signature` must have a spec for each input. "
            f"Received: input_signature={input_signature!r}."
        )
    signature = _named(model, arguments)
    if model.built:
        return signature
    try:
        model(*keras.tree.map_structure(_symbolic, signature.arguments))
    except Exception as e:  # building runs the code of every layer
        raise ExportError(
            "`input_signature` must fit the model. "
            f"Received: {[tuple(spec.shape) for spec in specs]} for model {model.name!r}, which "
            f"cannot be built on that: {one_line(e)}"
        ) from e
    return signature


def _spec(leaf: Any) -> Any:
    """Turn whatever describes an input into a `tf.TensorSpec`; an array's batch is free."""
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    known = isinstance(leaf, keras.InputSpec | tf.TensorSpec | keras.KerasTensor)
    if shape is None or dtype is None or (isinstance(leaf, tf.TensorSpec) and shape.rank is None):
        raise ExportError(
            "`input_signature` must have leaves with a shape and a dtype: keras.InputSpec, "
            f"tf.TensorSpec, keras.KerasTensor or arrays. Received: {leaf!r}."
        )
    shape = list(shape) if known else [None, *shape[1:]]
    name = getattr(leaf, "name", None) if known else None
    return tf.TensorSpec(shape, keras.backend.standardize_dtype(dtype), name=name)


def _is_stateful(model: keras.Model) -> bool:
    """Say whether a layer keeps states between batches, one for each sample of a batch."""
    return any(getattr(layer, "stateful", False) for layer in model._flatten_layers())


def _of_shape(shape: Any, dtype: str, keeps_batch: bool) -> Any:
    """Turn the recorded shape of a call's argument into a structure of specs."""
    if isinstance(shape, dict):
        return {key: _of_shape(value, dtype, keeps_batch) for key, value in shape.items()}
    if all(size is None or isinstance(size, int) for size in shape):
        return tf.TensorSpec(shape if keeps_batch else [None, *shape[1:]], dtype)
    return type(shape)(_of_shape(value, dtype, keeps_batch) for value in shape)


def _named(model: keras.Model, arguments: tuple[Any, ...]) -> Signature:
    """Give inputs without a name that of their key, or the one in the model, or the argument's.

    Keys come sorted, whatever order the model has: its own names would be another input's.
    """
    parameters = list(model._call_signature.parameters)
    places = keras.tree.flatten_with_path(arguments)
    own = [str(tensor.name) for tensor in getattr(model, "inputs", None) or ()]
    if len(own) != len(places):
        own = [""] * len(places)
    taken: set[str] = set()
    named = []
    for ((first, *path), spec), there in zip(places, own, strict=True):
        argument = parameters[first] if first < len(parameters) else f"argument_{first}"
        keys = "_".join(key for key in path if isinstance(key, str))
        name = spec.name or keys or there or "_".join(map(str, [argument, *path]))
        if name in taken:
            name = f"{name}_{len(taken)}"
        taken.add(name)
        named.append(tf.TensorSpec(spec.shape, spec.dtype, name=name))
    return Signature(keras.tree.pack_sequence_as(arguments, named))


def _symbolic(spec: Any) -> Any:
    return keras.KerasTensor(spec.shape, spec.dtype.name, name=spec.name)
