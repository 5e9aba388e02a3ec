"""What the commands share: how they speak, how TensorFlow starts in silence, and what they refuse.

Nothing here imports TensorFlow before it is asked to.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from .errors import ExportError

__all__ = [
    "DebugOption",
    "ModelArgument",
    "complain",
    "quiet_tensorflow",
    "require_another_file",
    "say",
]

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL.keras", help="A Keras model file.")]
# `run` looks for the word itself; the commands only have to accept it.
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def complain(text: str) -> None:
    """Print one line to stderr, if it can be written."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            line = _printable(text).replace("\n", " ")
            print(f"keras-bn: {line}", file=sys.stderr, flush=True)


def say(text: object) -> None:
    """Print to stdout; a reader that has gone away does not change the verdict."""
    try:
        print(_printable(str(text)), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as e:
        raise ExportError(f"stdout must be writable. Received: {e.strerror}. Redirect it.") from e


def _printable(text: str) -> str:
    """Return the text without what a terminal would obey: a stranger may have named the layers."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def require_another_file(out: Path, what: str, *inputs: tuple[Path, str]) -> None:
    """Raise `ExportError` if a file to write is one of those that are read, be it by a link.

    Args:
        out: The file to write, which need not exist.
        what: What the command calls it.
        inputs: The files that are read, each with what the command calls it.
    """
    for path, name in inputs:
        same = False
        with contextlib.suppress(OSError):  # `replacing` says what is wrong with the target
            same = out.samefile(path)
        if same:
            raise ExportError(
                f"{what} must be another file than {name}. Received: {str(out)!r} for both."
            )


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
