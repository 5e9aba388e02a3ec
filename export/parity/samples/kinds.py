"""Batches of each kind, for whatever takes arrays: a Keras model, or an ONNX file.

    drawn            batches of 1, 2 and 3 samples from the input's distribution
    another size     where dimensions besides the batch are unknown: those at another size each
    constant         every value of a sample alike
    out of range     floats ten times as far out as they are expected; not for float16, which
                     promises nothing beyond the range that it was placed for

The dimensions get the first sizes of `SIZES` at which it runs, and behind those ever twice as much,
up to `LARGEST_SIZE` and `LARGEST_SAMPLE`: a network may crop thousands of positions. Where normal
draws leave nothing finite to compare, such as behind a logarithm, what has no range of its own is
drawn from each of `RANGES` in turn. Imports no TensorFlow.
"""

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ...errors import ExportError, UnfitSizesError
from ...runtime.session import Run, Samples
from .distribution import Distribution

__all__ = [
    "LARGEST_BATCH",
    "Batch",
    "Drawn",
    "Kinds",
    "NothingFiniteError",
    "by_kind",
    "draw_kinds",
    "drawn_for",
    "require_finite",
]

Drawn = tuple["list[Batch]", dict[str, str], list[str]]  # batches, what was drawn in words, notes
Kinds = Mapping[str, list[Samples]]  # the batches of each
Result = TypeVar("Result")
Refusal = Callable[[Iterable[Iterable[int]], Exception], ExportError]

DRAWN_BATCHES = (1, 2, 3)
LARGEST_BATCH = 63  # odd
EDGE_SAMPLES = 2
# Sizes of an unknown dimension, and what to try behind each as another one: first odd sizes that
# differ from axis to axis, then what a network that halves its input four or five times can take.
SIZES = (32, 96, 224)
FURTHER = ((13, 6), (16, 16), (32, 32))
LARGEST_SIZE, LARGEST_SAMPLE = 2**16, 2**22  # of a dimension; values of an input
LARGEST_INPUT = 2**27  # values by known sizes alone; a gigabyte as they are drawn
RANGES = ((0.0, 1.0), (1.0, 10.0))  # for logarithms, roots and their like


class NothingFiniteError(ExportError):
    """An output of Keras has no finite value on the samples."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Inputs to run at once.

    Attributes:
        case: Which kind of inputs they are.
        arrays: One for each input.
    """

    case: str
    arrays: Samples


def draw_kinds(
    specs: Sequence[Any],
    distributions: Sequence[Distribution],
    run: Run,
    cannot_run: Refusal,
    *,
    seed: int,
    precision: str = "keep",
) -> Drawn:
    """Draw batches of every kind.

    Args:
        specs: The inputs, a `tf.TensorSpec` each, or what has a name, a shape and a dtype like one.
        distributions: What to draw for each.
        run: Runs what they are the inputs of.
        cannot_run: Makes an error of that which `run` raises on samples of some shapes.
        seed: Seed of the draws.
        precision: "keep", or what a file computes in.

    Returns:
        The batches; in words, what was drawn for each input, by name; and what else to note.

    Raises:
        ExportError: If `seed` is no integer of at least 0, or nothing runs at any of the sizes.
        ExportError: If the known sizes of an input make too many values of it.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise ExportError(f"check: `seed` must be an integer of at least 0. Received: {seed!r}.")
    for spec in specs:
        known = [size for size in spec.shape if size is not None]
        if math.prod(known) > LARGEST_INPUT:
            raise ExportError(
                f"check: input {spec.name!r} must have at most {LARGEST_INPUT:,} values to be "
                f"drawn. Received: sizes {known}. Give samples by --input."
            )
    generator = np.random.default_rng(seed)
    first, second, notes = _sizes(specs, distributions, run, cannot_run)

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


def by_kind(batches: Iterable[Batch], precision: str = "keep") -> Kinds:
    """Return batches by kind; float64 numbers as a file in float32 takes them, all else as it is.

    Args:
        batches: The batches.
        precision: "keep", or what the file computes in.
    """

    def taken(array: np.ndarray) -> np.ndarray:
        narrowed = precision == "float32" and array.dtype == np.float64
        return array.astype(np.float32).astype(array.dtype) if narrowed else array

    kinds: dict[str, list[Samples]] = {}
    for batch in batches:
        kinds.setdefault(batch.case, []).append([taken(array) for array in batch.arrays])
    return kinds


def drawn_for(
    use: Callable[[Drawn], Result], draw: Callable[[tuple[float, float] | None], Drawn]
) -> Result:
    """Draw for what needs finite outputs: normal values, then others until there are some.

    Args:
        use: Takes what was drawn; raises `NothingFiniteError` where it is of no use.
        draw: Draws floats of which nothing is known from a range, or normal ones.

    Returns:
        What `use` returns.

    Raises:
        ExportError: As `draw`, and as `use` does with normal values if no others do.
    """
    batches, drawn, notes = draw(None)
    tried = []
    try:
        return use((batches, drawn, notes))
    except NothingFiniteError as e:
        for low, high in RANGES:
            batches, others, notes = draw((low, high))
            names = sorted(name for name, why in others.items() if why != drawn[name])
            if not names:  # each input has a range of its own
                break
            note = (
                f"normal draws leave an output without finite values: {', '.join(names)} was drawn "
                f"from [{low:g}, {high:g})"
            )
            try:
                return use((batches, others, [*notes, note]))
            except NothingFiniteError:
                tried.append(f"[{low:g}, {high:g})")
        if not tried:
            raise
        raise NothingFiniteError(f"{e} Draws from {' and '.join(tried)} give none either.") from e


def require_finite(
    names: Iterable[str], outputs: Samples, kind: str, where: str = "the Keras model"
) -> None:
    """Raise `NothingFiniteError` if an output has no finite value."""
    for name, values in zip(names, outputs, strict=True):
        if values.size == 0 or not np.isfinite(values).any():
            raise NothingFiniteError(
                f"check: output {name!r} of {where} must have finite values to "
                f"compare. Received: {values.size} values, none finite, on {kind} inputs. "
                "Give other samples, or mend the model."
            )


def _shape(spec: Any, batch: int, dimensions: tuple[int, ...]) -> list[int]:
    """Fill in a shape; an unknown dimension's size depends on its axis alone."""
    shape = [
        size if size is not None else dimensions[min(axis - 1, len(dimensions) - 1)]
        for axis, size in enumerate(spec.shape)
    ]
    shape[:1] = [spec.shape[0] or batch] if shape else []
    return shape


def _sizes(
    specs: Sequence[Any], distributions: Sequence[Distribution], run: Run, cannot_run: Refusal
) -> tuple[tuple[int, ...], tuple[int, ...] | None, list[str]]:
    """Return the sizes of unknown dimensions by axis, another set of them, and notes."""
    if all(size is not None for spec in specs for size in spec.shape[1:]):
        return (SIZES[0],), None, []
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

    for size in _sizes_to_try(specs):
        if runs((size,)):
            notes = [f"unknown dimensions at {size}: no smaller size that was tried runs"]
            notes = notes if size > SIZES[-1] else []
            for steps in FURTHER:
                further = tuple(size + step for step in steps)
                if runs(further):
                    return (size,), further, notes
            alone = f"unknown dimensions at one size alone, {size}: none other runs"
            return (size,), None, [*notes, alone]
        if not isinstance(failures[-1], UnfitSizesError):
            raise failures[-1]
    raise ExportError(f"{failures[0]} No size from {SIZES[0]} to {size} runs.")


def _sizes_to_try(specs: Sequence[Any]) -> Iterator[int]:
    yield from SIZES
    size = 2 * SIZES[-1]
    while size <= LARGEST_SIZE and all(
        math.prod(_shape(spec, 1, (size,))) <= LARGEST_SAMPLE for spec in specs
    ):
        yield size
        size *= 2
