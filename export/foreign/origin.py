"""What a model came from and who opens it: what an error about it says first."""

from dataclasses import dataclass

__all__ = ["Origin"]


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
