"""The command line: `keras-bn demo | export | check | fold | inspect | recalibrate`.

Each command checks what it can before it imports TensorFlow, which takes seconds. Exit status: 0
agreed or done, 1 parity failed (or the demo fell short), 2 bad input, 3 an error of this program. A
mistake is one line on stderr; `--debug` adds the traceback.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from .console import (
    DebugOption,
    ModelArgument,
    complain,
    quiet_tensorflow,
    require_another_file,
    say,
)
from .errors import ExportError, ParityError, one_line
from .fold_cli import fold
from .load import load_keras_model, load_samples, require_file, require_keras_file
from .statistics_cli import inspect, recalibrate

__all__ = ["run"]

# Exit statuses; 0 is agreed.
DIFFERS, BAD_INPUT, INTERNAL, TERMINATED = 1, 2, 3, 143

app = typer.Typer(
    help="Batch normalisation for Keras: export to ONNX with every batch norm folded, and proof; "
    "inspect and renew the statistics of trained models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

OnnxArgument = Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX file.")]
SamplesOption = Annotated[
    Path | None,
    typer.Option(
        "--input",
        metavar="FILE.npz",
        help="Samples to compare on, arrays named like the model's inputs. Default: drawn.",
    ),
]


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status.

    Args:
        arguments: The words after the program's name; None takes those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)

    def terminate(*_: object) -> None:
        # At once: an exception could be raised, and swallowed, inside a library's callback.
        save = sys.modules.get("keras_bn.export.save")
        if save is not None:
            save.remove_unfinished()
        os._exit(TERMINATED)

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, terminate)
    try:
        app(words, prog_name="keras-bn")
    except Exception as e:
        if "--debug" in words and sys.stderr is not None:
            traceback.print_exc()
        if isinstance(e, ExportError | ParityError):
            complain(str(e))
            sys.exit(DIFFERS if isinstance(e, ParityError) else BAD_INPUT)
        complain(f"internal error: {one_line(e)}. Please report it with --debug.")
        sys.exit(INTERNAL)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"keras-bn {version('keras-bn')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options that stand before the command."""


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the files go; created if missing.")
    ] = Path("keras-bn-demo"),
    debug: DebugOption = False,
) -> None:
    """Train on real handwritten digits, export with every batch norm folded, and prove it.

    Example: keras-bn demo --out /tmp/demo
    """
    del debug
    with quiet_tensorflow():
        from .demo import run_demo

    if not run_demo(out):
        raise typer.Exit(DIFFERS)


@app.command()
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.")],
    samples: SamplesOption = None,
    opset: Annotated[
        int, typer.Option(metavar="N", help="Version of ONNX's operators, 13 to 18.")
    ] = 18,
    precision: Annotated[
        str, typer.Option(metavar="keep|float32|float16", help="What the file computes in.")
    ] = "keep",
    inputs_as_nchw: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An input with its channels at axis 1; repeatable."),
    ] = None,
    outputs_as_nchw: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="An output with its channels at axis 1; repeatable."),
    ] = None,
    external_data: Annotated[
        bool | None,
        typer.Option(help="Weights in a file of their own. Default: where one cannot hold them."),
    ] = None,
    check: Annotated[bool, typer.Option(help="Prove that ONNX Runtime agrees with Keras.")] = True,
    debug: DebugOption = False,
) -> None:
    """Export a Keras model to ONNX with its batch norms folded, and prove that the two agree.

    Example: keras-bn export model.keras model.onnx
    """
    del debug
    require_keras_file(model)
    require_another_file(out, "OUT.onnx", (model, "MODEL.keras"))
    arrays = load_samples(samples) if samples is not None else None
    with quiet_tensorflow():
        from .pipeline import export_onnx
    say(
        export_onnx(
            load_keras_model(model),
            out,
            inputs=arrays,
            opset=opset,
            precision=precision,  # type: ignore[arg-type]  # export_onnx refuses any other word
            inputs_as_nchw=inputs_as_nchw or (),
            outputs_as_nchw=outputs_as_nchw or (),
            external_data=external_data,
            check=check,
        )
    )


@app.command()
def check(
    model: ModelArgument,
    onnx: OnnxArgument,
    samples: SamplesOption = None,
    precision: Annotated[
        str, typer.Option(metavar="keep|float32|float16", help="What the file was exported with.")
    ] = "keep",
    debug: DebugOption = False,
) -> None:
    """Compare an ONNX file with the Keras model it came from, both against float64.

    Example: keras-bn check model.keras model.onnx --input samples.npz
    """
    del debug
    require_keras_file(model)
    require_file(onnx, "MODEL.onnx")
    arrays = load_samples(samples) if samples is not None else None
    with quiet_tensorflow():
        from .parity import check_parity
    report = check_parity(load_keras_model(model), onnx, inputs=arrays, precision=precision)
    say(report)
    if not report.passed:
        raise typer.Exit(DIFFERS)


app.command()(fold)
app.command()(inspect)
app.command()(recalibrate)
