"""Whatever holds data for a Keras model, as batches of (inputs, targets, sample weights).

Taken as `keras.Model.fit` takes it: arrays are cut into batches; datasets, `PyDataset`s, generators
and loaders give batches already, each of them `x`, `(x, y)` or `(x, y, sample_weight)`. Of a
dataset distributed by `tf.distribute`, every replica's part is a batch of its own.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

__all__ = [
    "Batch",
    "batch_size_of",
    "batches",
    "check_data",
    "moment_weights",
    "number_of_batches",
]

Batch = tuple[Any, Any, Any]  # inputs, targets or None, sample weights or None


def check_data(
    where: str, data: Any, *, batch_size: int, steps: int | None, passes: int = 1
) -> None:
    """Refuse data that cannot be iterated as asked, before anything runs.

    Args:
        where: Name of the function that was called, for messages.
        data: What the caller gave.
        batch_size: Samples a batch, where `data` are arrays.
        steps: Number of batches wanted; None for all.
        passes: How many times the data will be iterated.

    Raises:
        TypeError: If `data` is nothing that holds batches.
        ValueError: If `batch_size` or `steps` is no positive integer, arrays differ in length, the
            data are infinite and `steps` is None, or an iterator would have to start again.
    """
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        positive = isinstance(value, int | np.integer) and not isinstance(value, bool) and value > 0
        if not positive and not (name == "steps" and value is None):
            rule = "be None or an int >= 1" if name == "steps" else "be an int >= 1"
            raise ValueError(f"{where}: `{name}` must {rule}. Received: {name}={value!r}.")
    if _are_arrays(data):
        lengths = {int(array.shape[0]) for array in _leaves(data)}
        if len(lengths) != 1:
            raise ValueError(
                f"{where}: `data` must be arrays of one length. Received: lengths "
                f"{sorted(lengths)}. A tuple stands for (x, y) or (x, y, sample_weight), a list "
                "or dict for a model with several inputs; batches come from a generator."
            )
        return
    if not _gives_batches(data):
        kind = type(data).__name__
        if hasattr(data, "dtype") and hasattr(data, "shape"):
            kind += f" of {data.dtype}, shape {tuple(data.shape)}"
        raise TypeError(
            f"{where}: `data` must be arrays with a sample axis, a tf.data.Dataset, a "
            f"keras.utils.PyDataset or an iterable of batches. Received: {kind}."
        )
    if steps is None and _is_infinite(data):
        raise ValueError(
            f"{where}: `steps` must be given where the data never end. Received: steps=None."
        )
    if passes > 1 and isinstance(data, Iterator):
        raise ValueError(
            f"{where}: `data` must be something that can be iterated again, because it is needed "
            f"{passes} times. Received: {type(data).__name__}, which is used up by the first time. "
            "Give arrays, a tf.data.Dataset or a keras.utils.PyDataset."
        )


def batches(where: str, data: Any, *, batch_size: int, steps: int | None) -> Iterator[Batch]:
    """Iterate over data once.

    Args:
        where: Name of the function that was called, for messages.
        data: What `check_data` accepted.
        batch_size: Samples a batch, where `data` are arrays; the last batch may be smaller.
        steps: Number of batches to take; None for all.

    Yields:
        Inputs, targets and sample weights as tensors; None for what the data do not have.

    Raises:
        TypeError: If a batch is no array and no structure of arrays.
        ValueError: If there are fewer than `steps` batches, or none.
    """
    taken = 0

    def tensor(value: Any) -> Any:
        converted = tf.convert_to_tensor(value)
        if len(converted.shape) == 0:
            raise TypeError(
                f"{where}: `data` must give batches of arrays with a sample axis. Received: "
                f"{type(value).__name__} {value!r} in batch {taken - 1}. Turn lists into arrays."
            )
        return converted

    for element in itertools.islice(_elements(data, batch_size), steps):
        taken += 1
        for part in _local_parts(element):
            yield tuple(  # type: ignore[misc]
                None if tree is None else tf.nest.map_structure(tensor, tree)
                for tree in keras.utils.unpack_x_y_sample_weight(part)
            )
    if taken == 0 or (steps is not None and taken < steps):
        wanted = "at least one batch" if steps is None else f"`steps`={steps} batches"
        raise ValueError(
            f"{where}: `data` must have {wanted}. Received: {taken} batches. Give more data, or "
            "fewer `steps`; an iterator that was used before has nothing left."
        )


def number_of_batches(data: Any, *, batch_size: int, steps: int | None) -> int | None:
    """Return how many batches `batches` will give, or None where that is not known."""
    if steps is not None:
        return steps
    if _are_arrays(data):
        return -(-int(_leaves(data)[0].shape[0]) // batch_size)
    if isinstance(data, keras.utils.PyDataset):
        known: int | None = data.num_batches
        return known
    if isinstance(data, tf.data.Dataset):
        cardinality = int(data.cardinality())
        return cardinality if cardinality >= 0 else None
    try:
        return len(data)
    except TypeError:  # also raised by loaders that have a length only for some data
        return None


def moment_weights(where: str, sample_weight: Any, weighted: bool) -> Any:
    """Return the sample weights of a batch if they shall weigh its moments, else None.

    Args:
        where: Name of the function that was called, for messages.
        sample_weight: What the batch has, or None.
        weighted: Whether the caller asked for it.

    Raises:
        ValueError: If it was asked for and the batch has none, or one for each output.
    """
    if not weighted:
        return None
    if not isinstance(sample_weight, tf.Tensor):
        kind = "no weights" if sample_weight is None else type(sample_weight).__name__
        raise ValueError(
            f"{where}: `weighted` must be False where the data have not one array of sample "
            f"weights. Received: {kind}. Give (x, y, sample_weight)."
        )
    return sample_weight


def batch_size_of(inputs: Any) -> int:
    """Return the number of samples in a batch's inputs."""
    return int(_leaves(inputs)[0].shape[0])


def _leaves(tree: Any) -> list[Any]:
    return [leaf for leaf in tf.nest.flatten(tree) if leaf is not None]


def _are_arrays(data: Any) -> bool:
    """Tell arrays, or a structure of them, from what gives batches."""
    if isinstance(data, keras.utils.PyDataset | tf.data.Dataset | Iterator):
        return False
    leaves = _leaves(data)
    return bool(leaves) and all(
        isinstance(leaf, np.ndarray | tf.Tensor | tf.Variable | keras.Variable)
        and len(leaf.shape) > 0
        for leaf in leaves
    )


def _gives_batches(data: Any) -> bool:
    if isinstance(data, keras.utils.PyDataset):
        return True
    if isinstance(data, list | tuple) and any(np.isscalar(leaf) for leaf in _leaves(data)):
        return False
    no_batches = str | bytes | dict | set | frozenset | np.ndarray | tf.Tensor
    return isinstance(data, Iterable) and not isinstance(data, no_batches)


def _is_infinite(data: Any) -> bool:
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    return isinstance(data, tf.data.Dataset) and data.cardinality() == tf.data.INFINITE_CARDINALITY


def _elements(data: Any, batch_size: int) -> Iterator[Any]:
    if _are_arrays(data):
        for start in range(0, int(_leaves(data)[0].shape[0]), batch_size):
            cut = slice(start, start + batch_size)
            batch = tf.nest.map_structure(lambda x, c=cut: None if x is None else x[c], data)
            # Keras takes a list that a loader gives for (x, y), and a list of arrays for inputs.
            yield batch if isinstance(batch, tuple) else (batch,)
    elif isinstance(data, keras.utils.PyDataset):
        count = data.num_batches
        yield from (data[i] for i in (itertools.count() if count is None else range(count)))
    else:
        yield from data


def _local_parts(element: Any) -> list[Any]:
    """Split what a distributed dataset gives into the parts of this process's replicas."""
    flat = [
        value.values if isinstance(value, tf.distribute.DistributedValues) else (value,)
        for value in tf.nest.flatten(element)
    ]
    replicas = max(map(len, flat), default=1)
    return [
        tf.nest.pack_sequence_as(element, [values[min(i, len(values) - 1)] for values in flat])
        for i in range(replicas)
    ]
