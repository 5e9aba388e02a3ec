"""What the commands share: how they speak, and how TensorFlow starts in silence.

    stdout    what a command found: text, one JSON object with --json, nothing with --quiet
    stderr    one line for an error; while a person watches, what is being done

Nothing here imports TensorFlow before it is asked to.
"""

import contextlib
import json
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from keras_bn.reporting import jsonable

from ..errors import ExportError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "BAD_INPUT",
    "DIFFERS",
    "INTERNAL",
    "INTERRUPTED",
    "TERMINATED",
    "answer",
    "command_of",
    "complain",
    "one_line_of",
    "print_text",
    "progress",
    "quiet_tensorflow",
    "show_cursor",
]

# Exit statuses; 0 is agreed, or done.
DIFFERS, BAD_INPUT, INTERNAL, INTERRUPTED, TERMINATED = 1, 2, 3, 130, 143

SHOW_CURSOR = b"\x1b[?25h"
_in_use: list[int] = []  # the descriptor of the terminal on which `progress` is shown


def command_of(context: typer.Context) -> str:
    """Return the command as it could be typed again; `run` has put its words into the context."""
    return shlex.join(context.obj or context.command_path.split())


def complain(text: str) -> None:
    """Print one line to stderr, if it can be written."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            print(f"keras-bn: {one_line_of(text)}", file=sys.stderr, flush=True)


def answer(
    data: Callable[[], dict[str, Any]],
    show: "Callable[[Console], None]",
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Print what a command found in the way that was asked for.

    Args:
        data: Returns it as a JSON object.
        show: Prints it as text.
        as_json: Whether to print the JSON object.
        quiet: Whether to print no text.
    """
    if as_json:
        _write(json.dumps(jsonable(data()), allow_nan=False) + "\n")
    elif not quiet:
        from rich.console import Console

        # Colours depend on what stdout is, and on NO_COLOR; a pipe is 80 columns wide.
        console = Console(highlight=False, markup=False, emoji=False)
        with console.capture() as captured:
            show(console)
        _write(captured.get())


def _write(text: str) -> None:
    """Write to stdout; a reader that has gone away does not change the verdict."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as e:
        raise ExportError(f"stdout must be writable. Received: {e.strerror}. Redirect it.") from e


def print_text(text: str, console: "Console") -> None:
    """Print text to a console as it is, in lines as long as they are."""
    console.print(_printable(text).rstrip("\n"), soft_wrap=True)


def one_line_of(text: str) -> str:
    """Return the text as one line without what a terminal would obey."""
    return _printable(text).replace("\n", " ")


def _printable(text: str) -> str:
    """Return the text without what a terminal would obey: a stranger may have named the layers."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


@contextlib.contextmanager
def progress(*, shown: bool) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done and for how long, if a person watches; then remove it.

    Args:
        shown: False for nothing at all.

    Yields:
        A function that takes what is being done now, in words.
    """
    if not shown or sys.stderr is None or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    # A descriptor of its own: `quiet_tensorflow` takes the usual one away for a while.
    with os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding) as terminal:
        _in_use.append(terminal.fileno())  # before the cursor is hidden
        try:
            console = Console(file=terminal)
            with Progress(*columns, console=console, transient=True, redirect_stdout=False) as bar:
                task = bar.add_task("", total=None)
                yield lambda now: bar.update(task, description=one_line_of(now))
        finally:
            _in_use.clear()


def show_cursor() -> None:
    """Show the cursor again if `progress` hides it now; for an end without clean-up."""
    for descriptor in _in_use:
        with contextlib.suppress(OSError):
            os.write(descriptor, SHOW_CURSOR)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow without its start-up messages.

    They are written to the file descriptor before any setting of TensorFlow's applies, so the
    descriptor itself is redirected for that moment. If the block raises, they are shown.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    if backend != "tensorflow":
        raise ExportError(
            "the Keras backend must be 'tensorflow'. "
            f"Received: KERAS_BACKEND={backend!r}. Unset that variable."
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryFile() as messages:
        try:
            before = os.dup(2)
        except OSError:  # stderr is closed: nobody reads it
            yield
            return
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(messages.fileno(), 2)
        failed = True
        try:
            import tensorflow as tf

            tf.config.list_physical_devices()  # looks for GPUs, and says so
            yield
            failed = False
        except (KeyboardInterrupt, SystemExit):
            failed = False
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
            if failed:
                messages.seek(0)
                os.write(2, messages.read())
