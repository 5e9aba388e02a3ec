"""Samples that are given -> batches of 1, of 2, and of as many as may be. Imports no TensorFlow."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ...errors import ExportError, one_line
from ...files.arrays_file import in_words, is_batch_of
from ...runtime.session import Samples
from .kinds import LARGEST_BATCH, Batch

__all__ = ["split"]

FIRST_BATCHES = (1, 2)


def split(
    inputs: np.ndarray | dict[str, np.ndarray],
    specs: Sequence[Any],
    largest: Callable[[Samples], int] = lambda _: LARGEST_BATCH,
) -> Iterator[Batch]:
    """Check samples against a model's inputs and cut them into batches.

    Args:
        inputs: An array of shape (N, ...) for a model with one input, or a dict by input name; a
            single array may have the name "".
        specs: The model's inputs, a `tf.TensorSpec` each.
        largest: Returns how many samples may run at once, given the first; asked for many.

    Yields:
        Batches. The first has 1 sample, the next 2, the others as many as `largest` allows;
        where the model's batch size is fixed all have that, the last filled up by repetition.

    Raises:
        ExportError: If an input has no samples, or they have another shape, or are not finite
            numbers in the input's dtype, or differ in number from those of another input.
    """
    by_name = inputs if isinstance(inputs, dict) else {specs[0].name: inputs}
    if len(specs) == 1 and list(by_name) == [""]:
        by_name = {specs[0].name: by_name[""]}
    samples: Samples = []
    for spec in specs:
        if spec.name not in by_name:
            raise ExportError(
                f"check: the samples must have an array for each of the inputs "
                f"{[s.name for s in specs]}. Received: {in_words(by_name)}."
            )
        shape = (None, *spec.shape[1:])
        try:
            array = np.asarray(by_name[spec.name])
        except (TypeError, ValueError) as e:  # such as lists of different lengths
            raise ExportError(
                f"check: the samples of input {spec.name!r} must be numbers of shape {shape}. "
                f"Received: a {type(by_name[spec.name]).__name__}: {one_line(e)}"
            ) from e
        if not is_batch_of(array, shape):
            raise ExportError(
                f"check: the samples of input {spec.name!r} must be numbers of shape {shape}, at "
                f"least one, whatever the file's layout. Received: {array.dtype} of shape "
                f"{array.shape}."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            samples.append(array.astype(spec.dtype.as_numpy_dtype))
        if not np.isfinite(samples[-1]).all():
            raise ExportError(
                f"check: the samples of input {spec.name!r} must be finite in {spec.dtype.name}. "
                f"Received: {np.count_nonzero(~np.isfinite(samples[-1]))} values that are not."
            )
    counts = {len(array) for array in samples}
    if len(counts) > 1:
        raise ExportError(
            "check: every input must have the same number of samples. "
            f"Received: {[len(array) for array in samples]} for {[s.name for s in specs]}."
        )
    fixed, count = specs[0].shape[0], counts.pop()
    if fixed is not None:
        for start in range(0, count, fixed):
            rows = range(start, start + fixed)
            yield Batch("given", [array.take(rows, 0, mode="wrap") for array in samples])
        return
    many = count > sum(FIRST_BATCHES)
    size = largest([array[:1] for array in samples]) if many else LARGEST_BATCH
    sizes = itertools.chain(FIRST_BATCHES, itertools.repeat(size))
    start = 0
    while start < count:
        end = start + next(sizes)
        yield Batch("given", [array[start:end] for array in samples])
        start = end
