"""`keras-bn recalibrate`: estimate a model's statistics anew, from data."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ExportError
from ..files.arrays_file import load_samples
from ..files.keras_file import open_keras_file
from ..files.paths import require_another_file, require_file
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

__all__ = ["EXAMPLES", "recalibrate"]

EXAMPLES = examples(
    "keras-bn recalibrate model.keras new.keras --data train.npz --batch-size 128",
    "keras-bn recalibrate model.keras new.keras --data camera.npz --strength 0.5",
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
    keras_file = open_keras_file(model, unsafe=unsafe)
    require_file(data, "FILE.npz")
    require_another_file(out, "OUT.keras", (model, "MODEL.keras"), (data, "FILE.npz"))
    if out.suffix != ".keras":
        raise ExportError(f"OUT.keras must end in .keras. Received: {str(out)!r}.")
    arrays = load_samples(data)
    from ..files.whole_file import replacing  # imports onnx

    with progress(shown=not (as_json or quiet)) as step, replacing(out) as temporary:
        step("starting TensorFlow")
        with quiet_tensorflow():
            from .statistics.recalibration import recalibrate_subject
            from .statistics.trial import Subject
        step(f"estimating the statistics of {model} on {data}")
        done = recalibrate_subject(
            Subject.of(keras_file.load_compiled(), model, data, arrays, batch_size),
            out,
            temporary,
            strength=strength,
            variance=variance or ("paper" if strength is None else "pooled"),
            sequential=sequential,
            include_frozen=include_frozen,
            command=command_of(context),
        )
    answer(
        done.to_dict,
        lambda console: print_text(str(done), console),
        as_json=as_json,
        quiet=quiet,
    )
