"""The command line: `keras-bn demo | export | check | fold | inspect | recalibrate | bench`.

Each command checks what it can before it imports TensorFlow, which takes seconds. Exit status: 0
agreed or done, 1 parity failed (or the demo fell short), 2 bad input, 3 an error of this program,
130 interrupted. A mistake is one line on stderr; `--debug` adds the traceback.
"""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from keras_bn import __version__

from . import bench_cli, check_cli, export_cli, fold_cli, statistics_cli
from .console import (
    BAD_INPUT,
    DIFFERS,
    INTERNAL,
    INTERRUPTED,
    TERMINATED,
    DebugOption,
    JsonOption,
    QuietOption,
    answer,
    complain,
    examples,
    progress,
    quiet_tensorflow,
    show_cursor,
)
from .errors import ExportError, ParityError, one_line

__all__ = ["run"]

SETTINGS = {"help_option_names": ["-h", "--help"]}
PARITY_PROGRAM = "python -m keras_bn.export.parity"

app = typer.Typer(
    help="Batch normalisation for Keras: export to ONNX with every batch norm folded, and proof; "
    "inspect and renew the statistics of trained models.",
    epilog="Exit status: 0 agreed, 1 it differs, 2 bad input, 3 an error of this program.\n"
    "Start with: keras-bn demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=SETTINGS,
)
parity_app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings=SETTINGS
)


def run(arguments: Sequence[str] | None = None, *, only_check: bool = False) -> None:
    """Run the command line and exit with its status.

    Args:
        arguments: The words after the program's name; None takes those of the process.
        only_check: Whether the program is `python -m keras_bn.export.parity`.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    program, name = (parity_app, PARITY_PROGRAM) if only_check else (app, "keras-bn")

    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, _end)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not ignored
        signal.signal(signal.SIGINT, _end)
    try:
        command = [*name.split(), *words]
        status = program(words, prog_name=name, obj=command, standalone_mode=False)
    except Exception as e:
        if "--debug" in words and sys.stderr is not None:
            traceback.print_exc()
        sys.exit(_complain_of(e, name))
    sys.exit(status or 0)


def _end(number: int, _: object) -> None:
    """End at once: an exception could be raised, and swallowed, inside a library's callback."""
    save = sys.modules.get("keras_bn.export.save")
    remove_unfinished = getattr(save, "remove_unfinished", None)  # while it is imported: None
    if remove_unfinished is not None:
        remove_unfinished()
    show_cursor()
    os._exit(INTERRUPTED if number == signal.SIGINT else TERMINATED)


def _complain_of(error: Exception, name: str) -> int:
    """Say in one line what went wrong; return the exit status."""
    if isinstance(error, typer.TyperException):
        text = error.format_message()
        context = getattr(error, "ctx", None)
        if text:  # none where the help is what was printed
            command = context.command_path if context is not None else name
            stop = "" if text.endswith("?") else "."
            complain(f"{text.rstrip('.')}{stop} See {command} --help.")
        return BAD_INPUT
    if isinstance(error, ExportError | ParityError):
        complain(str(error))
        return DIFFERS if isinstance(error, ParityError) else BAD_INPUT
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        complain(f"there must be room to write to. Received: {error.strerror}. Make some.")
        return BAD_INPUT
    complain(f"internal error: {one_line(error)}. Please report it with --debug.")
    return INTERNAL


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"keras-bn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options that stand before the command."""


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the files go; created if missing.")
    ] = Path("keras-bn-demo"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train on real handwritten digits, export with every batch norm folded, and prove it."""
    del debug
    with progress(shown=not (as_json or quiet)) as step:
        step("starting TensorFlow")
        with quiet_tensorflow():
            from .demo import print_demo, run_demo
        found = run_demo(out, step)
    answer(found.to_dict, lambda console: print_demo(found, console), as_json=as_json, quiet=quiet)
    if not found.passed:
        raise typer.Exit(DIFFERS)


app.command(epilog=examples("keras-bn demo", "keras-bn demo --out /tmp/demo"))(demo)
app.command(epilog=export_cli.EXAMPLES)(export_cli.export)
app.command(epilog=check_cli.EXAMPLES)(check_cli.check)
app.command(epilog=fold_cli.EXAMPLES)(fold_cli.fold)
app.command(epilog=statistics_cli.INSPECT_EXAMPLES)(statistics_cli.inspect)
app.command(epilog=statistics_cli.RECALIBRATE_EXAMPLES)(statistics_cli.recalibrate)
app.command(epilog=bench_cli.EXAMPLES)(bench_cli.bench)
parity_app.command(epilog=check_cli.EXAMPLES.replace("keras-bn check", PARITY_PROGRAM))(
    check_cli.check
)
