"""What all reports share: the data they rest on, aligned lines of text, and JSON."""

import dataclasses
import math
import textwrap
from collections.abc import Sequence
from typing import Any

__all__ = ["DataReport", "counted", "jsonable", "shortened", "table", "wrapped"]

WIDTH = 100  # columns of text, unless a name alone is wider
NARROWEST = 40  # of the last column of a table
NAMED_LAYERS = 4  # paths that a line of text lists before it says how many others there are


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataReport:
    """The data that a report rests on, and the layers that it leaves out.

    Attributes:
        unchanged: Path and reason for each batch-norm layer that was left alone.
        batches: Number of batches that were used.
        skipped_batches: Number of batches left out, because they had no samples, no weight, or
            values that are NaN or Inf.
        samples: Number of samples in the batches that were used.
    """

    unchanged: dict[str, str]
    batches: int
    skipped_batches: int
    samples: int

    @property
    def data_used(self) -> str:
        """The data in words, such as "70 samples in 3 batches, 1 skipped"."""
        return f"{self.samples} samples in {self.batches} batches, {self.skipped_batches} skipped"

    def plot(self) -> Any:
        """Draw what was found at each layer; needs the extra `plots`.

        Returns:
            A matplotlib figure.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If the report has no layers.
        """
        return self._draw()

    def _draw(self) -> Any:
        raise NotImplementedError

    def data_to_dict(self, layers: Sequence[Any]) -> dict[str, Any]:
        """Return the report as JSON-compatible data, given its layers, which have `to_dict`."""
        names = (field.name for field in dataclasses.fields(DataReport))
        data = {name: getattr(self, name) for name in names}
        return {"layers": [layer.to_dict() for layer in layers], **jsonable(data)}

    def left_alone(self) -> list[str]:
        """Return a line for each layer that was left alone, with the reason."""
        return [f"  {path}: left alone, {why}" for path, why in self.unchanged.items()]


def counted(number: int, noun: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "sample"), counted(2000, "sample")
    ('1 sample', '2,000 samples')
    """
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def jsonable(value: Any) -> Any:
    """Return data that JSON can hold: arrays become lists, and numbers that are not finite None.

    Args:
        value: Dicts, lists, tuples, NumPy arrays and scalars, strings, numbers, None, dataclasses,
            and what has `to_dict`, nested.

    Example:
        >>> import numpy as np
        >>> jsonable({"shift": np.array([0.5, np.inf]), "layers": ("bn",)})
        {'shift': [0.5, None], 'layers': ['bn']}
    """
    import numpy as np  # not while the command line starts

    if hasattr(value, "to_dict"):
        return jsonable(value.to_dict())
    if dataclasses.is_dataclass(value):
        return jsonable(vars(value))
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return jsonable(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], meaning: Sequence[str] = ()
) -> list[str]:
    """Align cells in columns: the first to the left, the others to the right.

    Args:
        header: The columns' names.
        rows: As many cells each.
        meaning: Lines that say what the columns are.

    Returns:
        A line for the header and each row, and what they mean, indented by two spaces; nothing if
        there are no rows.

    Example:
        >>> table(("layer", "shift"), [("conv/bn", "0.5"), ("bn", "12.0")])[2]
        '  bn        12.0'
    """
    if not rows:
        return []
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return [
        "  " + "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ] + [f"  {line}" for line in meaning]


def shortened(paths: Sequence[str]) -> str:
    """Return the first few paths, and how many others there are.

    Example:
        >>> shortened(["a", "b", "c", "d", "e", "f"])
        'a, b, c, d and 2 others'
    """
    if len(paths) <= NAMED_LAYERS + 1:
        return ", ".join(paths)
    return f"{', '.join(paths[:NAMED_LAYERS])} and {len(paths) - NAMED_LAYERS} others"


def wrapped(text: str, indent: int, further: int) -> list[str]:
    """Return text in lines, all but the first indented further; names stay whole."""
    return textwrap.wrap(
        text,
        max(WIDTH, further + NARROWEST),
        initial_indent=" " * indent,
        subsequent_indent=" " * further,
        break_long_words=False,
        break_on_hyphens=False,
    )
