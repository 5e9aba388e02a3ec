"""What to compare on: batches of each kind that are drawn from a seed, or given samples.

    drawn            batches of 1, 2 and 3 samples from the input's distribution
    another size     where dimensions besides the batch are unknown: those at another size each
    constant         every value of a sample alike
    out of range     floats ten times as far out as they are expected; not for float16, which
                     promises nothing beyond the range that it was placed for

The dimensions get the first sizes of `SIZES` at which Keras can run the model.
"""

import dataclasses
import itertools
import numbers
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ...errors import ExportError, one_line
from ...runtime.session import Samples
from ...signature import Signature, signature_of
from ..reference.keras_runs import in_keras
from .distributions import Distribution, distributions_of

__all__ = ["LARGEST_BATCH", "Batch", "cannot_run", "draw", "samples_of", "split"]

DRAWN_BATCHES = (1, 2, 3)
EDGE_SAMPLES = 2
FIRST_BATCHES = (1, 2)  # of given samples
LARGEST_BATCH = 63  # odd
# Sizes of an unknown dimension, and what to try behind each as another one: first odd sizes that
# differ from axis to axis, then what a network that halves its input four times can take.
SIZES = (32, 96, 224)
FURTHER = ((13, 6), (16, 16))
IN_ERRORS = re.compile(r"\{\{.*?\}\}|\[Op:\w+\](?: name:)?")  # TensorFlow's own names
# How TensorFlow says that it has an operator for other devices only, or none for a dtype.
OF_THIS_CPU = re.compile(r"UnimplementedError|\bCPU\b|only supports NHWC|Could not find device")


@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs to run at once.

    Attributes:
        case: Which kind of inputs they are.
        arrays: One for each input.
    """

    case: str
    arrays: Samples


def draw(
    model: keras.Model,
    signature: Signature,
    *,
    seed: int,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    precision: str = "keep",
) -> tuple[list[Batch], dict[str, str], list[str]]:
    """Draw batches of every kind.

    Args:
        model: The model.
        signature: What it is called with.
        seed: Seed of the draws.
        ranges: Smallest and largest value of some inputs, by name.
        precision: "keep", or what a file computes in.

    Returns:
        The batches; in words, what was drawn for each input, by name; and what else to note.

    Raises:
        ExportError: If `ranges` is wrong, or Keras cannot run at any of the sizes.
    """
    specs = signature.specs
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise ExportError(f"check: `seed` must be an integer of at least 0. Received: {seed!r}.")
    distributions = distributions_of(model, specs, ranges or {})
    generator = np.random.default_rng(seed)
    first, second, notes = _sizes(model, signature, distributions)

    def batch(case: str, size: int, dimensions: tuple[int, ...]) -> Batch:
        arrays = []
        for i, (spec, distribution) in enumerate(zip(specs, distributions, strict=True)):
            shape = _shape(spec, size, dimensions)
            if not shape:
                arrays.append(distribution.draw(generator, shape))
            elif case == "constant":
                arrays.append(distribution.constants(shape, first=i))
            elif case == "out of range":
                arrays.append(distribution.outside(generator, shape))
            else:
                arrays.append(distribution.draw(generator, shape))
        return Batch(case, arrays)

    batches = [batch("drawn", size, first) for size in DRAWN_BATCHES]
    if second is not None:
        batches.append(batch("another size", EDGE_SAMPLES, second))
    batches.append(batch("constant", EDGE_SAMPLES, first))
    if precision != "float16" and any(spec.dtype.is_floating for spec in specs):
        batches.append(batch("out of range", EDGE_SAMPLES, first))
    drawn = {s.name: d.why for s, d in zip(specs, distributions, strict=True)}
    return batches, drawn, notes


def _shape(spec: Any, batch: int, dimensions: tuple[int, ...]) -> list[int]:
    """Fill in a shape; an unknown dimension's size depends on its axis alone."""
    shape = [
        size if size is not None else dimensions[min(axis - 1, len(dimensions) - 1)]
        for axis, size in enumerate(spec.shape)
    ]
    shape[:1] = [spec.shape[0] or batch] if shape else []
    return shape


def _sizes(
    model: keras.Model, signature: Signature, distributions: list[Distribution]
) -> tuple[tuple[int, ...], tuple[int, ...] | None, list[str]]:
    """Return the sizes of unknown dimensions by axis, another set of them, and notes."""
    specs = signature.specs
    if all(size is not None for spec in specs for size in spec.shape[1:]):
        return (SIZES[0],), None, []
    run = in_keras(model, signature)[0]
    generator = np.random.default_rng(0)
    failures = []

    def runs(dimensions: tuple[int, ...]) -> bool:
        shapes = [_shape(spec, 1, dimensions) for spec in specs]
        try:
            outputs = run(
                [d.draw(generator, s) for d, s in zip(distributions, shapes, strict=True)]
            )
        except Exception as e:  # running a model runs the code of every layer
            failures.append(cannot_run(shapes, e))
            return False
        if not all(output.size for output in outputs):  # smaller than a kernel
            failures.append(cannot_run(shapes, ValueError("an output has no values")))
            return False
        return True

    for size in SIZES:
        if runs((size,)):
            for steps in FURTHER:
                further = tuple(size + step for step in steps)
                if runs(further):
                    return (size,), further, []
            return (size,), None, [f"unknown dimensions at one size alone, {size}: none other runs"]
    raise failures[0]


def cannot_run(shapes: Iterable[Iterable[int]], error: Exception) -> ExportError:
    """Return the error of a model that Keras cannot run on samples, from that of `in_keras`."""
    found = " ".join(IN_ERRORS.sub(" ", one_line(error)).split()).rstrip(".")
    layer = _layer_of(error)
    if layer is not None:
        found = f"layer {layer.name!r} ({type(layer).__name__}): {found}"
    if isinstance(error, tf.errors.OpError) and OF_THIS_CPU.search(found):
        return ExportError(
            "check: TensorFlow must be able to run the model on this CPU. "
            f"Received: {found}. Export with `check=False`, and prove the file where it can."
        )
    return ExportError(
        "check: Keras must be able to run the model on the samples. Received: "
        f"{[tuple(shape) for shape in shapes]}: {found}. "
        "Give samples of a suitable shape, with indices that tables have, by `inputs` or --input."
    )


def _layer_of(error: Exception) -> Any:
    """Return the innermost layer that an error came through; None if there was none."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    owners = [frame.f_locals.get("self") for frame in frames]
    layers = [owner for owner in owners if isinstance(owner, keras.Layer)]
    return layers[-1] if layers else None


def split(
    inputs: np.ndarray | dict[str, np.ndarray],
    specs: list[Any],
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
            unnamed = "one array without a name, as in an .npy file; give an .npz file"
            received = unnamed if list(by_name) == [""] else f"arrays {sorted(by_name)}"
            raise ExportError(
                f"check: the samples must have an array for each of the inputs "
                f"{[s.name for s in specs]}. Received: {received}."
            )
        shape = (None, *spec.shape[1:])
        try:
            array = np.asarray(by_name[spec.name])
        except (TypeError, ValueError) as e:  # such as lists of different lengths
            raise ExportError(
                f"check: the samples of input {spec.name!r} must be numbers of shape {shape}. "
                f"Received: a {type(by_name[spec.name]).__name__}: {one_line(e)}"
            ) from e
        if (
            array.dtype.kind not in "fiub"
            or array.ndim != len(shape)
            or array.shape[0] == 0
            or any(wanted not in (None, n) for wanted, n in zip(shape, array.shape, strict=True))
        ):
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


def samples_of(
    model: keras.Model, input_signature: Any, inputs: Any, second: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """Return the batches of a check as a float16 file takes them.

    Args:
        model: The model.
        input_signature: As for `export_onnx`.
        inputs: Given samples; None draws them.
        second: Names of inputs whose channels are at axis 1 in the file.
    """
    signature = signature_of(model, input_signature)
    specs = signature.specs
    batches = (
        draw(model, signature, seed=0, precision="float16")[0]
        if inputs is None
        else split(inputs, specs)
    )
    return [
        {
            spec.name: np.moveaxis(array, -1, 1) if spec.name in second else array
            for spec, array in zip(specs, batch.arrays, strict=True)
        }
        for batch in batches
    ]
