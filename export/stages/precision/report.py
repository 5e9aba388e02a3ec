"""Which nodes compute in which precision, and why, as plain data that print and turn into JSON."""

import dataclasses
import enum
from collections import Counter
from typing import Any, Literal, get_args

from ...errors import ExportError

__all__ = ["Float32Reason", "InFloat32", "Precision", "PrecisionReport", "require_precision"]

Precision = Literal["keep", "float32", "float16"]


class Float32Reason(enum.StrEnum):
    """Why a node stays in float32; the text of an `InFloat32`."""

    OTHER_DOMAIN = "it is no operator of standard ONNX"
    SUBGRAPH = "it holds a subgraph"
    UNKNOWN_TYPE = "the type of a value is not known"
    UNKNOWN_OPERATOR = "nothing is known about the operator's accuracy in float16"
    NO_FLOAT16_FORM = "ONNX has no float16 form of the operator"
    OVERFLOW = "a value comes too near to the largest number in float16"
    UNDERFLOW = "a tensor's values are all below the smallest normal number in float16"
    WEIGHT_OVERFLOW = "a constant would overflow in float16"
    WEIGHT_UNDERFLOW = "a constant would lose its digits in float16"
    SENSITIVE = "it is an exponential, power, root, quotient or normalisation, or scales by one"
    ARGUMENT = "a root, logarithm, quotient or rounding depends on small differences in it"
    LONG_SUM = "it adds up many values"
    DISCRETE = "it rounds, compares or orders"
    FROM_INTEGERS = "it computes with integers or positions"
    NEIGHBOURS = "what is around it stays in float32"


@dataclasses.dataclass(frozen=True)
class InFloat32:
    """A node that stays in float32 in a float16 graph.

    Attributes:
        node: Name of the node.
        operator: Its ONNX operator.
        reason: Why it stays.
        detail: The tensor or the count that decided, for a person to read; empty if none.
    """

    node: str
    operator: str
    reason: Float32Reason
    detail: str


@dataclasses.dataclass(frozen=True)
class PrecisionReport:
    """What `set_precision` made of a graph.

    Attributes:
        precision: What was asked for: "keep", "float32" or "float16".
        float16: Number of nodes that compute in float16; 0 unless that was asked for.
        float32: Those that stay in float32 in a float16 graph, in the graph's order.
        casts: Number of Casts that were put between the two.
    """

    precision: str
    float16: int = 0
    float32: tuple[InFloat32, ...] = ()
    casts: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        if self.precision != "float16":
            return f"precision: {self.precision}"
        lines = [
            f"{self.float16} nodes compute in float16, {len(self.float32)} in float32, "
            f"{self.casts} Casts between them"
        ]
        for reason, count in Counter(row.reason for row in self.float32).most_common():
            first = next(row for row in self.float32 if row.reason is reason)
            found = f": {first.detail}" if first.detail else ""
            others = f" and {count - 1} others" if count > 1 else ""
            lines.append(f"  {reason}: {first.operator} {first.node}{found}{others}")
        return "\n".join(lines)


def require_precision(where: str, precision: str) -> None:
    """Raise `ExportError`, in the name of `where`, unless there is such a precision."""
    if precision not in get_args(Precision):
        raise ExportError(
            f"{where}: `precision` must be 'keep', 'float32' or 'float16'. "
            f"Received: precision={precision!r}."
        )
