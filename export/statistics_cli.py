"""`keras-bn inspect | recalibrate`: what inference makes of a model's statistics, and new ones.

Both read a `.keras` file and an `.npz` file of arrays named like the model's inputs. What is wrong
with either, or with a path to write, is found as early as it can be: paths before TensorFlow is
imported, the data before anything is measured.
"""

import contextlib
import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import (
    DebugOption,
    ModelArgument,
    quiet_tensorflow,
    require_another_file,
    say,
)
from .errors import ExportError
from .load import load_samples, require_file, require_keras_file

__all__ = ["inspect", "recalibrate"]

DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="FILE.npz",
        help="Arrays named like the model's inputs, or x; and targets, named like its outputs, "
        "or y. Preprocessed as in training.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the report as a JSON object.")]
BatchSizeOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Samples a batch; give that of training. Default: 32.", show_default=False
    ),
]


def inspect(
    model: ModelArgument,
    data: DataOption,
    html: Annotated[
        Path | None, typer.Option(metavar="OUT.html", help="Write the report as a page, too.")
    ] = None,
    as_json: JsonOption = False,
    batch_size: BatchSizeOption = None,
    debug: DebugOption = False,
) -> None:
    """Say why a model that trains well predicts badly: batch statistics against stored ones.

    The model is loaded with its loss and optimizer where they can be
    restored: given targets, the loss is compared, and the number of training
    steps is evidence. Otherwise it is loaded without, and the report says
    why. The exit status is 0 whatever is found.

    Example: keras-bn inspect model.keras --data train.npz --html report.html
    """
    del debug
    require_keras_file(model)
    require_file(data, "FILE.npz")
    if html is not None:
        require_another_file(html, "OUT.html", (model, "MODEL.keras"), (data, "FILE.npz"))
        _require_page_extra()
    arrays = load_samples(data)
    words: list[object] = ["keras-bn", "inspect", model, "--data", data]
    words += ["--html", html] if html else []
    words += ["--batch-size", batch_size] if batch_size is not None else []
    from .save import replacing  # imports onnx

    with replacing(html) if html is not None else contextlib.nullcontext() as temporary:
        with quiet_tensorflow():
            from .inspection import inspect_files
        inspection = inspect_files(
            model,
            data,
            arrays,
            batch_size=batch_size,
            command=shlex.join(map(str, words)),
            verbose=_verbosity(as_json),
        )
        if temporary is not None:
            from .page import render_page

            temporary.write_text(render_page(inspection), encoding="utf-8", errors="replace")
    say(json.dumps(inspection.to_dict(), allow_nan=False) if as_json else inspection)


def recalibrate(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.keras", help="The file to write.")],
    data: DataOption,
    variance: Annotated[
        str | None,
        typer.Option(
            metavar="paper|pooled",
            help="Mean of the batch variances (Algorithm 2), or the variance of all values. "
            "Default: paper; with --strength, pooled.",
            show_default=False,
        ),
    ] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="One layer at a time, a pass over the data each.")
    ] = False,
    strength: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="Adapt to a new domain: move the statistics by this part, in [0, 1], towards "
            "those of the data. Default: estimate them anew.",
            show_default=False,
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    include_frozen: Annotated[
        bool, typer.Option("--include-frozen", help="Layers with trainable=False, too.")
    ] = False,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> None:
    """Give a trained model new batch-norm statistics, from data and its weights as they are.

    Nothing else in the model changes. OUT.keras appears whole or not at all,
    with the loss and optimizer of MODEL.keras where they can be restored.

    Example: keras-bn recalibrate model.keras better.keras --data train.npz --batch-size 128
    """
    del debug
    require_keras_file(model)
    require_file(data, "FILE.npz")
    require_another_file(out, "OUT.keras", (model, "MODEL.keras"), (data, "FILE.npz"))
    if out.suffix != ".keras":
        raise ExportError(f"OUT.keras must end in .keras. Received: {str(out)!r}.")
    arrays = load_samples(data)
    words: list[object] = ["keras-bn", "recalibrate", model, out, "--data", data]
    words += ["--variance", variance] if variance is not None else []
    words += ["--sequential"] if sequential else []
    words += ["--strength", strength] if strength is not None else []
    words += ["--batch-size", batch_size] if batch_size is not None else []
    words += ["--include-frozen"] if include_frozen else []
    from .save import replacing  # imports onnx

    with replacing(out) as temporary:
        with quiet_tensorflow():
            from .recalibration import recalibrate_file
        done = recalibrate_file(
            model,
            data,
            out,
            temporary,
            arrays,
            strength=strength,
            variance=variance or ("paper" if strength is None else "pooled"),
            sequential=sequential,
            include_frozen=include_frozen,
            batch_size=batch_size,
            command=shlex.join(map(str, words)),
            verbose=_verbosity(as_json),
        )
    say(json.dumps(done.to_dict(), allow_nan=False) if as_json else done)


def _verbosity(as_json: bool) -> int:
    """Return 1, a progress bar, where a person watches and nobody parses."""
    return int(not as_json and sys.stdout is not None and sys.stdout.isatty())


def _require_page_extra() -> None:
    try:
        import jinja2  # noqa: F401
    except ModuleNotFoundError as e:
        raise ExportError(
            f"--html needs the package {e.name!r}, which is not installed. "
            "Install the extra: pip install 'keras-bn[report]'."
        ) from e
