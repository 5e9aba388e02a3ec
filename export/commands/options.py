"""Arguments and options that several commands have. Imports no TensorFlow."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, get_args

import typer

from ..errors import ExportError
from ..stages.precision.report import Precision

__all__ = [
    "DebugOption",
    "InputShapesOption",
    "JsonOption",
    "ModelArgument",
    "PageOption",
    "PrecisionOption",
    "PreprocessOption",
    "QuietOption",
    "SamplesOption",
    "UnsafeOption",
    "examples",
    "input_shapes",
    "installed_providers",
    "named_ranges",
]

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL.keras", help="A Keras model file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print nothing; the exit status tells.")
]
UnsafeOption = Annotated[
    bool,
    typer.Option("--unsafe", help="Let MODEL.keras run code of its own; for files you trust."),
]
InputShapesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape",
        metavar="NAME=1x3x48x320",
        help="Sizes of an input of an ONNX file, where it leaves some free, for what is drawn; "
        "repeatable.",
        show_default="found by trying",
    ),
]
# `run` looks for the word itself; the commands only have to accept it.
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

SamplesOption = Annotated[
    Path | None,
    typer.Option(
        "--input",
        metavar="PATH",
        help="Samples to compare on: an .npz file of arrays named like the model's inputs, an .npy "
        "file for a single input, or a folder of images.",
        show_default="drawn",
    ),
]
PreprocessOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How the images of a folder become inputs: none leaves pixels from 0 to 255, 0-1 "
        "divides them by 255, resnet and the like do as their network in Keras does.",
        show_default="what the model says",
    ),
]
PRECISIONS = get_args(Precision)


def _require_precision(value: str) -> str:
    """Refuse another word before TensorFlow starts."""
    if value not in PRECISIONS:
        raise ExportError(f"--precision must be one of {PRECISIONS}. Received: {value!r}.")
    return value


PrecisionOption = Annotated[
    str,
    typer.Option(
        metavar="TYPE",
        help="What the ONNX file computes in: keep, float32 or float16.",
        autocompletion=lambda: list(PRECISIONS),
        callback=_require_precision,
    ),
]
PageOption = Annotated[
    Path | None,
    typer.Option(
        metavar="PAGE.html", help="Write the proof as a page, too, with latencies measured here."
    ),
]

DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="FILE.npz",
        help="Arrays named like the model's inputs, or x; and targets, named like its outputs, "
        "or y. Preprocessed as in training.",
    ),
]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Samples a batch; give that of training. Default: 32.", show_default=False
    ),
]


def examples(*lines: str) -> str:
    """Return the end of a command's help, a line for each example."""
    return "\n".join(["Examples:", *lines])


def installed_providers() -> list[str]:
    """Return the execution providers of ONNX Runtime here, for the shell to complete."""
    from ..runtime import providers

    return providers.installed_providers()


def named_ranges(
    limits: dict[str, tuple[float, float]], names: Callable[[], list[str]]
) -> dict[str, tuple[float, float]]:
    """Give a range without a name that of the only input, of which `names` returns all."""
    if "" not in limits:
        return limits
    inputs = names()
    if len(inputs) != 1 or len(limits) != 1:
        raise ExportError(
            f"--range must name an input, where there are several or another one is named: one of "
            f"{inputs}. Received: {':'.join(f'{limit:g}' for limit in limits[''])!r}. "
            f"Write --range {inputs[0]}=LOW:HIGH."
        )
    return {inputs[0]: limits[""]}


def input_shapes(words: list[str], samples: Path | None = None) -> dict[str, list[int]]:
    """Return the sizes of each NAME=1x3x48x320, by name.

    Args:
        words: What was given as --input-shape.
        samples: Likewise as --input.

    Raises:
        ExportError: If a word is none of that form, or names an input again, or there are samples.
    """
    if words and samples is not None:
        raise ExportError(
            "--input-shape must be left out where samples are given: nothing is drawn then. "
            f"Received: --input-shape and --input {samples}."
        )
    found: dict[str, list[int]] = {}
    for word in words:
        name, _, sizes = word.rpartition("=")
        shape = [int(size) if size.isdecimal() else 0 for size in sizes.split("x")]
        if not name or name in found or min(shape) < 1:
            raise ExportError(
                "--input-shape must be NAME=1x3x48x320, once for each input, in sizes of at least "
                f"1. Received: {word!r}."
            )
        found[name] = shape
    return found
