"""The arrays of a data file -> what a Keras model takes, and what its loss compares with.

An input's array has the input's name; where the model has one input, "x" or the only array that is
no target will do. A target's array has the output's name; where the model has one output, "y" will
do. Targets may be missing, but not some of them. Other arrays are left alone.

NaN and Inf pass: whoever measures on the arrays counts the batches that have them. It refuses
arrays that are missing, hold no numbers, have another shape than the input, or differ in length.
"""

import dataclasses
from typing import Any

import keras
import numpy as np

from ...errors import ExportError
from ...files.arrays_file import TARGETS, is_batch_of, only_input
from ...signature import input_specs, output_names

__all__ = ["ModelData", "batch_size_for", "inputs_among", "select_arrays"]

DEFAULT_BATCH_SIZE = 32


@dataclasses.dataclass(frozen=True)
class ModelData:
    """The arrays that a model takes.

    Attributes:
        x: The inputs, in the structure that the model is called with.
        y: The targets, in the structure of the outputs; None if there are none.
        inputs: Names of the arrays that are inputs, in the model's order.
        targets: Names of those that are targets.
        unused: Names of the others.
        samples: Number of samples.
    """

    x: Any
    y: Any
    inputs: tuple[str, ...]
    targets: tuple[str, ...]
    unused: tuple[str, ...]
    samples: int


def select_arrays(arrays: dict[str, np.ndarray], model: keras.Model) -> ModelData:
    """Find a model's inputs and targets among named arrays.

    Args:
        arrays: The arrays by name; the only one may have the name "".
        model: A built functional or sequential model.

    Returns:
        The inputs and the targets.

    Raises:
        ExportError: If the inputs of the model are unknown.
        ExportError: If an input has no array, or some but not all outputs have targets.
        ExportError: If an array holds no numbers, no samples, or does not fit its input.
        ExportError: If the arrays differ in length.
    """
    structure = input_specs(model)
    specs = keras.tree.flatten(structure)
    outputs = _target_structure(model)
    targets = _target_names(arrays, keras.tree.flatten(outputs), [spec.name for spec in specs])
    inputs = _input_names(arrays, specs, targets)
    for spec, name in zip(specs, inputs, strict=True):
        _check_input(name, arrays[name], spec)
    for name in targets:
        if arrays[name].dtype.kind not in "fiub" or arrays[name].ndim == 0:
            raise ExportError(
                f"the targets {name!r} must be numbers, a row for each sample. "
                f"Received: {arrays[name].dtype} of shape {arrays[name].shape}."
            )
    used = (*inputs, *targets)
    lengths = {name: len(arrays[name]) for name in used}
    if len(set(lengths.values())) > 1:
        raise ExportError(
            "all inputs and targets must have the same number of samples. "
            f"Received: {', '.join(f'{count} in {name!r}' for name, count in lengths.items())}."
        )
    x = keras.tree.pack_sequence_as(structure, [arrays[name] for name in inputs])
    y = keras.tree.pack_sequence_as(outputs, [arrays[n] for n in targets]) if targets else None
    unused = tuple(sorted(set(arrays) - set(used)))
    return ModelData(x, y, inputs, targets, unused, lengths[inputs[0]])


def inputs_among(arrays: dict[str, np.ndarray], model: keras.Model) -> dict[str, np.ndarray]:
    """Return arrays in which the one input of a model has its name, if it is told apart.

    Args:
        arrays: The arrays by name; the only one may have the name "".
        model: A functional or sequential model.
    """
    specs = keras.tree.flatten(input_specs(model))
    if len(specs) != 1 or specs[0].name in arrays:
        return arrays
    outputs = keras.tree.flatten(_target_structure(model))
    targets = _target_names(arrays, outputs, [specs[0].name])
    (name,) = _input_names(arrays, specs, targets)
    return {specs[0].name: arrays[name]}


def batch_size_for(model: keras.Model, samples: int, wanted: int | None) -> int:
    """Return the batch size to use: as wanted, or 32, or what the model fixes.

    Raises:
        ExportError: If the model fixes its batch size to another one than `wanted`, or to one that
            does not divide the number of samples.
    """
    fixed = {spec.shape[0] for spec in keras.tree.flatten(input_specs(model))} - {None}
    if not fixed:
        return DEFAULT_BATCH_SIZE if wanted is None else wanted
    size = int(min(fixed))
    if wanted not in (None, size):
        raise ExportError(
            f"--batch-size must be {size}, which the model fixes. Received: {wanted}. Leave it out."
        )
    if samples % size:
        raise ExportError(
            f"the number of samples must be a multiple of {size}, the batch size that the model "
            f"fixes. Received: {samples} samples. Leave out {samples % size} of them."
        )
    return size


def _target_structure(model: keras.Model) -> Any:
    """Return the names of the outputs, in the structure of the outputs."""
    structure = model.outputs[0] if isinstance(model, keras.Sequential) else model.output
    count = len(keras.tree.flatten(structure))
    if isinstance(structure, dict) and len(structure) == count:
        return {key: key for key in structure}
    return keras.tree.pack_sequence_as(
        structure,
        output_names(model, [spec.name for spec in keras.tree.flatten(input_specs(model))]),
    )


def _target_names(
    arrays: dict[str, np.ndarray], outputs: list[str], inputs: list[str]
) -> tuple[str, ...]:
    found = [name for name in outputs if name in arrays and name not in inputs]
    if len(found) == len(outputs):
        return tuple(found)
    if found:
        raise ExportError(
            f"the data must have targets for all of the outputs {outputs}, or for none. "
            f"Received: arrays {sorted(arrays)}."
        )
    is_told = len(outputs) == 1 and TARGETS in arrays and TARGETS not in inputs
    return (TARGETS,) if is_told else ()


def _input_names(
    arrays: dict[str, np.ndarray], specs: list[Any], targets: tuple[str, ...]
) -> tuple[str, ...]:
    names = tuple(str(spec.name) for spec in specs)
    if all(name in arrays for name in names):
        return names
    found = only_input(arrays, names[0], targets) if len(names) == 1 else None
    if found is not None:
        return (found,)
    rule = "" if len(specs) > 1 else ', or one named "x"'
    raise ExportError(
        f"the data must have an array for each of the inputs {list(names)}{rule}. "
        f"Received: arrays {sorted(arrays)}. Write them with numpy.savez(path, name=array, ...)."
    )


def _check_input(name: str, array: np.ndarray, spec: Any) -> None:
    shape = (None, *spec.shape[1:])
    if not is_batch_of(array, shape):
        raise ExportError(
            f"the array {name!r} must be numbers of shape {shape} for the input {spec.name!r}, at "
            f"least one sample. Received: {array.dtype} of shape {array.shape}."
        )
