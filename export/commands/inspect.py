"""`keras-bn inspect`: what inference makes of a model's statistics, on data.

It reads a `.keras` file and an `.npz` file of arrays named like the model's inputs, as
`keras-bn recalibrate` does. What is wrong with either, or with a path to write, is found as early
as it can be: paths before TensorFlow is imported, the data before anything is measured.
"""

from pathlib import Path
from typing import Annotated

import typer

from ..files.arrays_file import load_samples
from ..files.keras_file import open_keras_file
from ..files.paths import require_file
from .console import answer, command_of, print_text, progress, quiet_tensorflow
from .options import (
    BatchSizeOption,
    DataOption,
    DebugOption,
    JsonOption,
    ModelArgument,
    QuietOption,
    UnsafeOption,
    examples,
)
from .pages.writing import replacing_page

__all__ = ["EXAMPLES", "inspect"]

EXAMPLES = examples(
    "keras-bn inspect model.keras --data train.npz",
    "keras-bn inspect model.keras --data train.npz --html report.html",
)


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
    keras_file = open_keras_file(model, unsafe=unsafe)
    require_file(data, "FILE.npz")
    with (
        progress(shown=not (as_json or quiet)) as step,
        replacing_page(html, "OUT.html", (model, "MODEL.keras"), (data, "FILE.npz")) as temporary,
    ):
        arrays = load_samples(data)
        step("starting TensorFlow")
        with quiet_tensorflow():
            from .statistics.inspection import inspection_of
            from .statistics.trial import Subject
        step(f"measuring {model} on {data}")
        subject = Subject.of(keras_file.load_compiled(), model, data, arrays, batch_size)
        inspection = inspection_of(subject, command_of(context))
        if temporary is not None:
            from .pages.inspection_page import render_page

            temporary.write_text(render_page(inspection), encoding="utf-8", errors="replace")
    answer(
        inspection.to_dict,
        lambda console: print_text(str(inspection), console),
        as_json=as_json,
        quiet=quiet,
    )
