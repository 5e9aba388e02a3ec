"""What an ONNX file says of itself: its inputs and outputs, and the precision it was exported in.

None of that is a fault by itself; where it is not what the model has, a note says so.
"""

import dataclasses
from typing import TYPE_CHECKING

from ..files.metadata import PRECISION
from ..foreign.opening import Opened
from ..runtime.session import by_position

if TYPE_CHECKING:
    from .expected import Expected

__all__ = ["Surface"]


@dataclasses.dataclass(frozen=True)
class Surface:
    """What a file says of itself.

    Attributes:
        inputs: Names of the inputs that must be given.
        outputs: Names of the outputs.
        dtypes: NumPy names of the outputs' dtypes, by name, where the file states them.
        precision: What it says that it was exported with; None if it does not.
    """

    inputs: list[str]
    outputs: list[str]
    dtypes: dict[str, str]
    precision: str | None

    @classmethod
    def of(cls, opened: Opened) -> "Surface":
        """Read it from a file."""
        outputs = opened.model.graph.outputs
        return cls(
            [str(value.name) for value in opened.inputs],
            [str(value.name) for value in outputs],
            {str(v.name): str(v.dtype.numpy().name) for v in outputs if v.dtype is not None},
            opened.model.metadata_props.get(PRECISION),
        )

    def notes(self, expected: "Expected", precision: str) -> list[str]:
        """Return in what it is other than the model.

        Args:
            expected: What the model has.
            precision: What the file is judged by.
        """
        notes = []
        if self.precision not in (None, precision):
            notes.append(
                f"the file says that it was exported with precision={self.precision!r}, and is "
                f"judged by {precision!r}; give the one that it is to have"
            )
        outputs = by_position(expected.outputs, self.outputs)
        for what, names, there in (
            ("inputs", expected.inputs, by_position(expected.inputs, self.inputs)),
            ("outputs", expected.outputs, outputs),
        ):
            if there != names:
                notes.append(f"the {what} {names} are called {there} in the file")
        for name, place, own in zip(expected.outputs, outputs, expected.cases[0].own, strict=True):
            stated = self.dtypes.get(place, own.dtype.name)
            if precision == "keep" and stated != own.dtype.name:
                notes.append(
                    f"output {name!r} is {own.dtype.name} in the model and {stated} in the file"
                )
        return notes
