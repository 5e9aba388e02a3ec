"""What `keras-bn export` and `keras-bn check` share: the samples to compare on, and the page.

Nothing here imports TensorFlow before it is asked to.
"""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer

from .console import quiet_tensorflow, require_page_extra
from .errors import ExportError
from .files.arrays_file import load_samples
from .files.keras_file import load_keras_model
from .files.paths import require_another_file

if TYPE_CHECKING:
    import keras

    from .bench import Bench
    from .parity.report import ParityReport

__all__ = [
    "PageOption",
    "PrecisionOption",
    "PreprocessOption",
    "SamplesOption",
    "load_with_samples",
    "named_samples",
    "replacing_page",
    "samples_from",
    "write_parity_page",
]

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
        "divides them by 255, resnet and the like are of keras.applications.",
        show_default="what the model says",
    ),
]
PRECISIONS = ("keep", "float32", "float16")


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

# What the arrays are for a model, and what to note about them.
Given = Callable[["keras.Model"], tuple[dict[str, np.ndarray] | None, tuple[str, ...]]]


def samples_from(path: Path | None, preprocess: str | None) -> Given:
    """Return a function from a model to its samples, having read what needs no model.

    Args:
        path: A file of arrays, or a folder of images; None for samples that are to be drawn.
        preprocess: How images become inputs.

    Raises:
        ExportError: If the file cannot be used, or `preprocess` is given for no folder.
    """
    if path is not None and os.path.isdir(path):

        def images(model: "keras.Model") -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
            from .parity.samples.images import load_images

            arrays, note = load_images(path, model, preprocess=preprocess)
            return arrays, (note,)

        return images
    if preprocess is not None:
        raise ExportError(
            "--preprocess must be given with a folder of images as --input. "
            f"Received: --preprocess {preprocess} and {f'the file {path}' if path else 'none'}."
        )
    arrays = None if path is None else load_samples(path)
    return lambda _: (arrays, ())


def load_with_samples(
    path: Path, given: Given, step: Callable[[str], None], *, unsafe: bool
) -> tuple["keras.Model", dict[str, np.ndarray] | None, tuple[str, ...]]:
    """Start TensorFlow and load a model and its samples.

    Args:
        path: The model's file.
        given: What `samples_from` returned.
        step: Takes what is being done, in words.
        unsafe: Whether the file may hold Python code, which loading it then runs.

    Returns:
        The model, its samples, and what to note about them.
    """
    step("starting TensorFlow")
    with quiet_tensorflow():
        from . import pipeline  # noqa: F401  imports TensorFlow, as do all that follow it
    step(f"loading {path}")
    model = load_keras_model(path, unsafe=unsafe)
    return model, *given(model)


def named_samples(path: Path | None) -> tuple[tuple[Path, str], ...]:
    """Return --input with its name, for `require_another_file`; nothing if it is not given."""
    return () if path is None else ((path, "--input"),)


@contextlib.contextmanager
def replacing_page(page: Path | None, *files: tuple[Path, str]) -> Iterator[Path | None]:
    """Give a temporary path for a page, or None if there is to be none.

    Args:
        page: The page to write.
        files: The files that it must not be, each with what the command calls it.
    """
    if page is None:
        yield None
        return
    require_another_file(page, "PAGE.html", *files)
    require_page_extra()
    from .files.whole_file import replacing  # imports onnx

    with replacing(page) as temporary:
        yield temporary


def write_parity_page(
    target: Path,
    report: "ParityReport",
    model: "keras.Model",
    *,
    source: Path,
    file: Path | None,
    command: str,
) -> None:
    """Measure latencies and write the page of a report.

    Args:
        target: Where to.
        report: What was found.
        model: The model.
        source: The file that it is from.
        file: The ONNX file; None if it was not written.
        command: The command that asks for it.
    """
    from .files.provenance import SourceFile
    from .parity.document import ParityDocument
    from .parity.page import render_parity_page

    bench = _bench(model, source, file)
    document = ParityDocument(
        report=report,
        model=SourceFile.of(source),
        file=None if file is None else SourceFile.of(file),
        fold=bench.fold if bench else None,
        latency=bench.latency if bench else None,
        command=command,
        created=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    )
    target.write_text(render_parity_page(document), encoding="utf-8", errors="replace")


def _bench(model: "keras.Model", source: Path, file: Path | None) -> "Bench | None":
    """Return the latencies and folds; None where the model cannot be exported any more."""
    from .bench import bench_keras

    try:
        return bench_keras(model, source, file=file)
    except ExportError:
        return None
