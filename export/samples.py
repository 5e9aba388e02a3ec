"""What to compare on: batches drawn from a seed, or given samples checked and cut into batches."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import ExportError

__all__ = ["Samples", "draw", "split"]

DRAWN_BATCHES = (1, 2, 5)
LARGEST_BATCH = 64
DYNAMIC_SIZE = 32  # drawn for an unknown dimension other than the batch

Samples = list[np.ndarray]  # one array for each input or output


def draw(specs: list[Any], seed: int) -> Iterator[Samples]:
    """Draw three batches, of 1, 2 and 5 samples where the size is free.

    Args:
        specs: The model's inputs, a `tf.TensorSpec` each.
        seed: Seed of the draws.

    Yields:
        An array for each input: floats normal with mean 0 and deviation 1, integers and booleans
        0 or 1; unknown dimensions get the size `DYNAMIC_SIZE`.
    """
    generator = np.random.default_rng(seed)
    for size in DRAWN_BATCHES:
        batch = []
        for spec in specs:
            shape = [n if n is not None else DYNAMIC_SIZE for n in spec.shape]
            shape[:1] = [spec.shape[0] or size] if shape else []
            if spec.dtype.is_floating:
                values: np.ndarray = generator.normal(size=shape)
            else:
                values = generator.integers(0, 2, size=shape)
            batch.append(values.astype(spec.dtype.as_numpy_dtype))
        yield batch


def split(inputs: np.ndarray | dict[str, np.ndarray], specs: list[Any]) -> Iterator[Samples]:
    """Check samples against a model's inputs and cut them into batches.

    Args:
        inputs: An array of shape (N, ...) for a model with one input, or a dict by input name; a
            single array may have the name "".
        specs: The model's inputs, a `tf.TensorSpec` each.

    Yields:
        An array for each input. The first batch has 1 sample, the others at most `LARGEST_BATCH`;
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
                f"{[s.name for s in specs]}. Received: arrays {sorted(by_name)}."
            )
        array = np.asarray(by_name[spec.name])
        shape = (None, *spec.shape[1:])
        if (
            array.dtype.kind not in "fiub"
            or array.ndim != len(shape)
            or array.shape[0] == 0
            or any(wanted not in (None, n) for wanted, n in zip(shape, array.shape, strict=True))
        ):
            raise ExportError(
                f"check: the samples of input {spec.name!r} must be numbers of shape {shape}, at "
                f"least one. Received: {array.dtype} of shape {array.shape}."
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
            yield [array.take(range(start, start + fixed), 0, mode="wrap") for array in samples]
        return
    yield [array[:1] for array in samples]
    for start in range(1, count, LARGEST_BATCH):
        yield [array[start : start + LARGEST_BATCH] for array in samples]
