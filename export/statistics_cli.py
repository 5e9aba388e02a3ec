"""`keras-bn inspect | recalibrate`: what inference makes of a model's statistics, and new ones.

Both read a `.keras` file and an `.npz` file of arrays named like the model's inputs. What is wrong
with either, or with a path to write, is found as early as it can be: paths before TensorFlow is
imported, the data before anything is measured.
"""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from .console import (
    DebugOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    UnsafeOption,
    answer,
    command_of,
    examples,
    print_text,
    progress,
    quiet_tensorflow,
    require_page_extra,
)
from .errors import ExportError
from .files.arrays_file import load_samples
from .files.keras_file import require_keras_file
from .files.paths import require_another_file, require_file

__all__ = ["INSPECT_EXAMPLES", "RECALIBRATE_EXAMPLES", "inspect", "recalibrate"]

INSPECT_EXAMPLES = examples(
    "keras-bn inspect model.keras --data train.npz",
    "keras-bn inspect model.keras --data train.npz --html report.html",
)
RECALIBRATE_EXAMPLES = examples(
    "keras-bn recalibrate model.keras new.keras --data train.npz --batch-size 128",
    "keras-bn recalibrate model.keras new.keras --data camera.npz --strength 0.5",
)

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


def inspect(
    context: typer.Context,
    model: ModelArgument,
    data: DataOption,
    html: Annotated[
        Path | None, typer.Option(metavar="OUT.html", help="Write the report as a page, too.")
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    unsafe: UnsafeOption = False,
    batch_size: BatchSizeOption = None,
    debug: DebugOption = False,
) -> None:
    """Say why a model that trains well predicts badly: batch statistics against stored ones.

    The model is loaded with its loss and optimizer where they can be
    restored: given targets, the loss is compared, and the number of training
    steps is evidence. Otherwise it is loaded without, and the report says
    why. The exit status is 0 whatever is found.
    """
    del debug
    require_keras_file(model, unsafe=unsafe)
    require_file(data, "FILE.npz")
    if html is not None:
        require_another_file(html, "OUT.html", (model, "MODEL.keras"), (data, "FILE.npz"))
        require_page_extra()
    arrays = load_samples(data)
    from .files.whole_file import replacing  # imports onnx

    with (
        progress(shown=not (as_json or quiet)) as step,
        replacing(html) if html is not None else contextlib.nullcontext() as temporary,
    ):
        step("starting TensorFlow")
        with quiet_tensorflow():
            from .inspection import inspect_files
        step(f"measuring {model} on {data}")
        inspection = inspect_files(
            model,
            data,
            arrays,
            batch_size=batch_size,
            unsafe=unsafe,
            command=command_of(context),
            verbose=0,
        )
        if temporary is not None:
            from .page import render_page

            temporary.write_text(render_page(inspection), encoding="utf-8", errors="replace")
    answer(
        inspection.to_dict,
        lambda console: print_text(str(inspection), console),
        as_json=as_json,
        quiet=quiet,
    )


def recalibrate(
    context: typer.Context,
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
    quiet: QuietOption = False,
    unsafe: UnsafeOption = False,
    debug: DebugOption = False,
) -> None:
    """Give a trained model new batch-norm statistics, from data and its weights as they are.

    Nothing else in the model changes. OUT.keras appears whole or not at all,
    with the loss and optimizer of MODEL.keras where they can be restored.
    """
    del debug
    require_keras_file(model, unsafe=unsafe)
    require_file(data, "FILE.npz")
    require_another_file(out, "OUT.keras", (model, "MODEL.keras"), (data, "FILE.npz"))
    if out.suffix != ".keras":
        raise ExportError(f"OUT.keras must end in .keras. Received: {str(out)!r}.")
    arrays = load_samples(data)
    from .files.whole_file import replacing  # imports onnx

    with progress(shown=not (as_json or quiet)) as step, replacing(out) as temporary:
        step("starting TensorFlow")
        with quiet_tensorflow():
            from .recalibration import recalibrate_file
        step(f"estimating the statistics of {model} on {data}")
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
            unsafe=unsafe,
            command=command_of(context),
            verbose=0,
        )
    answer(
        done.to_dict,
        lambda console: print_text(str(done), console),
        as_json=as_json,
        quiet=quiet,
    )
