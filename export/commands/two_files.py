"""`keras-bn check a.onnx b.onnx`: whether two ONNX files compute the same; needs no TensorFlow."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExportError
from ..files.arrays_file import load_samples, named_after
from ..files.paths import require_file
from .console import progress
from .options import named_ranges

if TYPE_CHECKING:
    from ..parity.report import ParityReport

__all__ = ["check_two_files", "is_onnx"]


def is_onnx(path: Path) -> bool:
    """Say whether a path is called as an ONNX file is."""
    return path.suffix.lower() == ".onnx"


def check_two_files(
    first: Path,
    second: Path,
    *,
    samples: Path | None,
    limits: dict[str, tuple[float, float]],
    shapes: dict[str, list[int]],
    seed: int,
    providers: list[str],
    keras_only: dict[str, Any],
    shown: bool,
) -> "ParityReport":
    """Compare two files.

    Args:
        first: What the other is judged by.
        second: What is judged.
        samples: A file of arrays; None draws them.
        limits: Smallest and largest value to draw, by input, "" for the only one.
        shapes: Sizes to draw, by input.
        seed: Seed of the draws.
        providers: ONNX Runtime's execution providers.
        keras_only: Options that need a Keras model, by name; each must be unset.
        shown: Whether to show what is being done.

    Raises:
        ExportError: If an option is given that needs a Keras model, or does not fit the files.
    """
    for path, name in ((first, "FIRST.onnx"), (second, "SECOND.onnx")):
        require_file(path, name)
    given = [name for name, value in keras_only.items() if value]
    if given:
        raise ExportError(
            f"{' and '.join(given)} must be left out where two ONNX files are compared: there is "
            f"no Keras model. Received: {first} and {second}."
        )
    arrays = None if samples is None else load_samples(samples)
    from ..foreign.opening import open_model
    from ..parity.graphs.check_files import check_files

    opened = open_model(first, where="check")
    names = [str(value.name) for value in opened.inputs]
    if arrays is not None:
        arrays = named_after(arrays, names, opened.outputs)
    limits = named_ranges(limits, lambda: names)
    with progress(shown=shown) as step:
        step(f"comparing {second} with {first}")
        return check_files(
            first,
            second,
            inputs=arrays,
            input_shapes=shapes,
            seed=seed,
            ranges=limits,
            providers=providers,
        )
