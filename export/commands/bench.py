"""`keras-bn bench`: how long a model takes here, in Keras, unfolded and folded."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..defaults import CPU
from ..errors import ExportError
from ..files.keras_file import open_keras_file
from ..files.paths import require_file
from .console import answer, progress, quiet_tensorflow
from .options import (
    DebugOption,
    JsonOption,
    QuietOption,
    UnsafeOption,
    examples,
    installed_providers,
)

__all__ = ["EXAMPLES", "bench"]

EXAMPLES = examples(
    "keras-bn bench model.keras",
    "keras-bn bench model.keras --batch-size 32 --threads 4 --seconds 10",
    "keras-bn bench theirs.onnx --json",
)


def bench(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A Keras model file, or an ONNX file.")
    ],
    batch_size: Annotated[
        int, typer.Option(min=1, metavar="N", help="Samples in a batch, unless the model fixes it.")
    ] = 1,
    threads: Annotated[
        int, typer.Option(min=1, metavar="N", help="Threads that each may use.")
    ] = 1,
    provider: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Execution provider of ONNX Runtime.",
            autocompletion=installed_providers,
        ),
    ] = CPU,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=3600, metavar="S", help="About how long to measure.")
    ] = 5.0,
    unsafe: UnsafeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Time a model on this machine: in Keras, unfolded and folded in ONNX Runtime.

    An ONNX file is timed as it is and folded. All take turns in one process
    on the same drawn batch. The figures hold for this machine alone.
    """
    del debug
    keras_file = None
    if model.suffix == ".onnx":
        require_file(model, "MODEL")
        if unsafe:
            raise ExportError("--unsafe must be left out for an ONNX file. Received: both.")
    else:
        keras_file = open_keras_file(model, unsafe=unsafe)
    with progress(shown=not (as_json or quiet)) as step:
        from .benched import print_bench
        from .onnx_timing import bench_onnx

        if keras_file is not None:
            step("starting TensorFlow")
            with quiet_tensorflow():
                from ..files.whole_file import scratch_folder
                from ..stages.conversion import convert
                from ..stages.converted import StageFiles
                from .timing import bench_keras, limit_keras
        step(f"timing {model}")
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "threads": threads,
            "provider": provider,
            "seconds": seconds,
        }
        if keras_file is None:
            found = bench_onnx(model, **options)
        else:
            limit_keras(threads)  # before loading the model lets TensorFlow compute
            with scratch_folder() as folder:
                stages = StageFiles(folder, convert)
                found = bench_keras(keras_file.load(), model, stages, **options)
    answer(found.to_dict, lambda console: print_bench(found, console), as_json=as_json, quiet=quiet)
