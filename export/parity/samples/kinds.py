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
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from ...errors import ExportError, one_line
from ...runtime.session import Run, Samples
from .distribution import Distribution

__all__ = [
    "Batch",
    "Drawn",
    "NothingFiniteError",
    "cannot_run",
    "draw_kinds",
    "drawn_for",
    "require_finite",
]

Drawn = tuple["list[Batch]", dict[str, str], list[str]]  # batches, what was drawn in words, notes
Result = TypeVar("Result")

DRAWN_BATCHES = (1, 2, 3)
EDGE_SAMPLES = 2
IN_ERRORS = re.compile(r"\{\{.*?\}\}|\[Op:\w+\](?: name:)?")  # TensorFlow's own names
# How TensorFlow says that it has an operator for other devices only, or none for a dtype.
OF_THIS_CPU = re.compile(r"UnimplementedError|\bCPU\b|only supports NHWC|Could not find device")
# Sizes of an unknown dimension, and what to try behind each as another one: first odd sizes that
# differ from axis to axis, then what a network that halves its input four times can take.
SIZES = (32, 96, 224)
FURTHER = ((13, 6), (16, 16))
LARGEST_SIZE, LARGEST_SAMPLE = 2**16, 2**22  # of a dimension; values of an input
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
    *,
    seed: int,
    precision: str = "keep",
) -> Drawn:
    """Draw batches of every kind.

    Args:
        specs: The inputs, a `tf.TensorSpec` each, or what has a name, a shape and a dtype like one.
        distributions: What to draw for each.
        run: Runs what they are the inputs of.
        seed: Seed of the draws.
        precision: "keep", or what a file computes in.

    Returns:
        The batches; in words, what was drawn for each input, by name; and what else to note.

    Raises:
        ExportError: If `seed` is no integer of at least 0, or nothing runs at any of the sizes.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or seed < 0:
        raise ExportError(f"check: `seed` must be an integer of at least 0. Received: {seed!r}.")
    generator = np.random.default_rng(seed)
    first, second, notes = _sizes(specs, distributions, run)

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
                continue
        raise e


def require_finite(names: Iterable[str], outputs: Samples, kind: str) -> None:
    """Raise `NothingFiniteError` if an output has no finite value."""
    for name, values in zip(names, outputs, strict=True):
        if values.size == 0 or not np.isfinite(values).any():
            raise NothingFiniteError(
                f"check: output {name!r} of the Keras model must have finite values to "
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
    specs: Sequence[Any], distributions: Sequence[Distribution], run: Run
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
    raise ExportError(f"{failures[0]} No size from {SIZES[0]} to {size} runs.")


def _sizes_to_try(specs: Sequence[Any]) -> Iterator[int]:
    yield from SIZES
    size = 2 * SIZES[-1]
    while size <= LARGEST_SIZE and all(
        math.prod(_shape(spec, 1, (size,))) <= LARGEST_SAMPLE for spec in specs
    ):
        yield size
        size *= 2


def cannot_run(shapes: Iterable[Iterable[int]], error: Exception) -> ExportError:
    """Return the error of a model that Keras cannot run on samples, from that of `in_keras`."""
    found = " ".join(IN_ERRORS.sub(" ", one_line(error)).split()).rstrip(".")
    layer = _layer_of(error)
    if layer is not None:
        found = f"layer {layer.name!r} ({type(layer).__name__}): {found}"
    if _is_a(error, "tensorflow", "OpError") and OF_THIS_CPU.search(found):
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
    layers = [owner for owner in owners if _is_a(owner, "keras", "Layer")]
    return layers[-1] if layers else None


def _is_a(thing: Any, package: str, name: str) -> bool:
    """Say whether a thing is of a class of a package that need not be installed."""
    classes = type(thing).__mro__
    return any(c.__name__ == name and c.__module__.split(".")[0] == package for c in classes)
