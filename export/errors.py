"""What a caller can get wrong, or learn, from an export.

A mistake that the caller can mend raises `ExportError`, with what was received and what to do; the
command line turns it into one line and exit status 2. A file that does not agree with its model
raises `ParityError`, exit status 1. A batch norm that cannot be folded raises nothing: it stays in
the graph and is listed as a `Refusal`.
"""

import re
from dataclasses import dataclass

__all__ = ["ExportError", "Origin", "UnfitSizesError", "invalid_model", "one_line"]

COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # in Keras's errors
LONGEST_DETAIL = 300  # characters of a foreign error that a message quotes


class ExportError(ValueError):
    """A model, file or target that cannot be used; the text says what to do."""


class UnfitSizesError(ExportError):
    """What is to run does not on samples of this shape."""


def one_line(error: Exception) -> str:
    """Return another library's error, its type first, as one line of bounded length."""
    text = COLOUR.sub("", f"{type(error).__name__}: {error}")
    return " ".join(text.split())[:LONGEST_DETAIL]


@dataclass(frozen=True)
class Origin:
    """What a model came from, and who opens it: what an error about it says first.

    Attributes:
        text: In words, such as the path in quotes.
        where: The command or function that opens it.
    """

    text: str
    where: str = "fold"

    def __str__(self) -> str:
        """Return the words."""
        return self.text


def invalid_model(source: Origin, why: str) -> ExportError:
    """Return the error for a model that is broken.

    Args:
        source: What it came from.
        why: What is wrong with it.
    """
    return ExportError(
        f"{source.where}: the model must be a whole and valid ONNX model. "
        f"Received: {source}: {why.rstrip('.')}. Export or copy it again."
    )
