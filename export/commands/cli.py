"""What runs a program of commands: its exit status, its signals, one line for what goes wrong.

Each command checks what it can before it imports TensorFlow, which takes seconds. Exit status: 0
agreed or done, 1 parity failed (or the demo fell short), 2 bad input, 3 an error of this program,
130 interrupted. A mistake is one line on stderr; `--debug` adds the traceback.
"""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any

import typer

from keras_bn.importing import why_not_found
from keras_bn.version import __version__

from ..errors import ExportError, one_line
from ..parity.report import ParityError
from .console import (
    BAD_INPUT,
    DIFFERS,
    INTERNAL,
    INTERRUPTED,
    TERMINATED,
    complain,
    show_cursor,
)

__all__ = ["program_of", "run", "with_version"]


def program_of(commands: Iterable[tuple[Callable[..., None], str]], **options: Any) -> typer.Typer:
    """Return commands as one program.

    Args:
        commands: Each command, and the examples that end its help.
        options: Those of `typer.Typer`.
    """
    program = typer.Typer(
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **options,
    )
    for function, examples in commands:
        program.command(epilog=examples)(function)
    return program


def run(program: typer.Typer, name: str, arguments: Sequence[str] | None = None) -> None:
    """Run a program and exit with its status.

    Args:
        program: The program.
        name: Its name, as it is called.
        arguments: The words after its name; None takes those of the process.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)

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
    whole_file = sys.modules.get("keras_bn.export.files.whole_file")
    remove_unfinished = getattr(whole_file, "remove_unfinished", None)  # while it is imported: None
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
    if isinstance(error, ModuleNotFoundError):
        complain(f"this command needs {why_not_found(error, 'export')}")
        return BAD_INPUT
    complain(f"internal error: {one_line(error)}. Please report it with --debug.")
    return INTERNAL


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"keras-bn {__version__}")
        raise typer.Exit


def with_version(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Take the options that stand before the command."""
