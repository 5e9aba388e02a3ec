"""What a fold did, as plain data: one row for each affine operator that was found."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from keras_bn.reporting import counted, wrapped

from .reason import ADVICE, ADVICE_ON_BATCH_NORMS, Reason

__all__ = ["Fold", "FoldReport", "Refusal"]


@dataclasses.dataclass(frozen=True)
class Fold:
    """An affine operator that is gone.

    Attributes:
        node: Name of the node that was removed.
        operator: Its ONNX operator, such as "BatchNormalization".
        layer: Path of the Keras layer whose weights it used; None if unknown.
        how: "backward" into what comes before it, "forward" into what comes behind it, "both":
            one part each way, or "clamp": into a HardSigmoid, with a clamp next to it.
        into: Names of the nodes that absorbed it; empty if it did nothing.
        through: Names of the nodes that it passed on the way.
        operations: Estimate of the additions and multiplications saved in each run, counting an
            unknown size as 1.
        bytes: Likewise of the memory traffic saved: its output written, and its input read.
    """

    node: str
    operator: str
    layer: str | None
    how: str
    into: tuple[str, ...]
    through: tuple[str, ...] = ()
    operations: int = 0
    bytes: int = 0

    @property
    def target(self) -> str:
        """The nodes that absorbed it, and those in between, in words."""
        through = f" through {', '.join(self.through)}" if self.through else ""
        return (", ".join(self.into) or "nothing") + through

    def __str__(self) -> str:
        return f"{self.operator} {self.layer or self.node}: {self.how} into {self.target}"


@dataclasses.dataclass(frozen=True)
class Refusal:
    """An affine operator that stays.

    Attributes:
        node: Name of the node.
        operator: Its ONNX operator.
        layer: Path of the Keras layer whose weights it uses; None if unknown.
        reason: Why it stays: why it does not fold backward, if both ways were tried.
        detail: What was found in its way, for a person to read.
        forward_reason: Why it does not fold forward; None if that was not tried.
        forward_detail: What was found there.
        both_reason: Why it does not go one part each way; None if that was not tried.
        both_detail: What was found there.
    """

    node: str
    operator: str
    layer: str | None
    reason: Reason
    detail: str
    forward_reason: Reason | None = None
    forward_detail: str = ""
    both_reason: Reason | None = None
    both_detail: str = ""

    @property
    def why(self) -> str:
        """The reasons, in words."""
        text = f"{self.reason} ({self.detail})"
        if self.forward_reason is not None:
            text += f"; behind it, {self.forward_reason} ({self.forward_detail})"
        if self.both_reason is not None:
            text += f"; one part each way, {self.both_reason} ({self.both_detail})"
        return text

    @property
    def advice(self) -> str | None:
        """What would help, in a clause that completes "to fold it, ..."; None if nothing is known.

        There may be more in its way than that.
        """
        known = ADVICE_ON_BATCH_NORMS if self.operator == "BatchNormalization" else ADVICE
        reasons = (self.reason, self.forward_reason, self.both_reason)
        return next((known[reason] for reason in reasons if reason in known), None)

    @property
    def told(self) -> str:
        """What would help, and the reasons."""
        return self.why if self.advice is None else f"to fold it, {self.advice}: {self.why}"

    def __str__(self) -> str:
        return f"{self.operator} {self.layer or self.node}: {self.told}"


@dataclasses.dataclass(frozen=True)
class FoldReport:
    """One row for each affine operator found.

    Attributes:
        folds: Those that are gone.
        refusals: Those that stay, and why.
        before: How many nodes of each type there were, graphs within the graph included.
        after: Likewise afterwards.
        replaceable: How many weights are inputs too, so that a caller may replace them; what reads
            them is left.
    """

    folds: tuple[Fold, ...]
    refusals: tuple[Refusal, ...]
    before: Mapping[str, int] = dataclasses.field(default_factory=dict)
    after: Mapping[str, int] = dataclasses.field(default_factory=dict)
    replaceable: int = 0

    @property
    def operations(self) -> int:
        """Estimate of the additions and multiplications saved in each run."""
        return sum(row.operations for row in self.folds)

    @property
    def bytes(self) -> int:
        """Estimate of the bytes of memory traffic saved in each run."""
        return sum(row.bytes for row in self.folds)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible data, with the totals."""
        totals = {"operations": self.operations, "bytes": self.bytes}
        return {**dataclasses.asdict(self), **totals}

    def table(self) -> str:
        """Return the report as text in columns.

        A row for each affine operator, one for each type of which there are fewer or more nodes
        now, and the totals.
        """
        heads = ("operator", "layer or node", "folded", "into, or why not")
        folds = [(row.operator, row.layer or row.node, row.how, row.target) for row in self.folds]
        left = [(row.operator, row.layer or row.node, "left", row.told) for row in self.refusals]
        rows = [heads, *folds, *left] if folds or left else []
        counts = self._counts()
        numbers = ["", *_aligned([("nodes", "before", "after"), *counts]), ""] if counts else []
        return "\n".join([*_with_last_wrapped(rows), *numbers, *self._notes(), self.totals()])

    def _counts(self) -> list[tuple[str, str, str]]:
        """Return the types whose number changes, with both numbers, and all together."""
        pairs = {
            kind: (self.before.get(kind, 0), self.after.get(kind, 0))
            for kind in sorted({*self.before, *self.after})
        }
        changed = [(kind, str(b), str(a)) for kind, (b, a) in pairs.items() if a != b]
        total = ("all", str(sum(self.before.values())), str(sum(self.after.values())))
        return [*changed, total] if changed else []

    def _notes(self) -> list[str]:
        if not self.replaceable:
            return []
        return [
            f"{self.replaceable} weights are inputs too, so that a caller may replace them: what "
            "reads them stays. `freeze=True` (`--freeze`) takes them for constants."
        ]

    def totals(self) -> str:
        """Return one line with the numbers of operators, and what a run saves."""
        return (
            f"{len(self.folds)} folded, {len(self.refusals)} left; for one sample this saves about "
            f"{_in_units(self.operations, 'operations')} "
            f"and {_in_units(self.bytes, 'B')} of memory traffic"
        )

    def __str__(self) -> str:
        lines = [
            f"{len(self.folds)} affine operators folded{_batch_norms(self.folds)}, "
            f"{len(self.refusals)} left{_batch_norms(self.refusals)}"
        ]
        alike: dict[tuple[object, ...], list[Refusal]] = {}
        for row in self.refusals:
            key = (row.operator, row.reason, row.forward_reason, row.both_reason)
            alike.setdefault(key, []).append(row)
        lines += self._notes()
        for first, *others in alike.values():
            more = f"; and {len(others)} more like it" if others else ""
            lines += wrapped(_printable(f"{first}{more}"), 2, 4)
        return "\n".join(lines)


def _batch_norms(rows: Sequence[Fold | Refusal]) -> str:
    """Say how many of the affine operators are what a reader knows them as."""
    norms = sum(row.operator == "BatchNormalization" for row in rows)
    return f" ({counted(norms, 'batch norm')})" if rows else ""


def _with_last_wrapped(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad the columns to one width each; the last goes on in the next line."""
    heads = _aligned([row[:-1] for row in rows])
    last = 2 + max(map(len, heads), default=0)
    lines: list[str] = []
    for head, row in zip(heads, rows, strict=True):
        first, *others = wrapped(_printable(row[-1]), last, last)
        lines += [head.ljust(last) + first[last:], *others]
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pad the columns to one width each."""
    cells = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _printable(text: str) -> str:
    """Keep a name from a stranger's file on its line."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _in_units(number: int, unit: str) -> str:
    """Write a number with a prefix of a thousand each, three digits.

    >>> _in_units(950, "B"), _in_units(999_999, "B"), _in_units(12_300_000, "operations")
    ('950 B', '1.00 MB', '12.3 M operations')
    """
    gap = "" if len(unit) == 1 else " "
    scaled, prefixes = float(number), iter("KMGTP")
    prefix = ""
    while round(scaled, 2) >= 999.5 and (following := next(prefixes, "")):
        scaled, prefix = scaled / 1000, following
    digits = 0 if not prefix or scaled >= 99.95 else 1 if scaled >= 9.995 else 2
    return f"{scaled:.{digits}f} {prefix}{gap if prefix else ''}{unit}"
