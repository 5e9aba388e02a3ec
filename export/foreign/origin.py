"""What a model came from and who opens it: what an error about it says first."""

from dataclasses import dataclass

from ..errors import ExportError

__all__ = ["Origin", "invalid_model"]


@dataclass(frozen=True)
class Origin:
    """Where a model came from.

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
