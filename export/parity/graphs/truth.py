"""What the first of two files makes of inputs in float64: the truth."""

import numpy as np
import onnx

from ...runtime.session import Samples, run_batches
from ..rule import TRUTHS
from .float64 import Arrays, Float64Graph, NoTruthError
from .rounding import run_rounded

__all__ = ["GraphTruth"]


class GraphTruth:
    """The first model in float64, or why it cannot be that.

    Attributes:
        graph: The graph.
        missing: Why there is no truth; None if there is one.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.graph = Float64Graph(proto)
        self.missing: str | None = None

    def of(self, batches: list[Arrays], own: Samples) -> tuple[Samples, str]:
        """Return the outputs, all batches joined, and which of `TRUTHS`, or why they are `own`."""
        if self.missing is None:
            try:
                return self._followed(self._run(batches), own)
            except NoTruthError as e:
                self.missing = str(e)
        return own, f"the first file itself; {self.missing}"

    def rounded(self, batches: list[Arrays], epsilon: float, own: Samples) -> list[Samples]:
        """Return what some runs that round at random give."""
        wanted = set(self.graph.outputs)
        runs = run_rounded(self.graph, batches, wanted, epsilon)
        return [self._followed(self._joined(run), own)[0] for run in runs]

    def _run(self, batches: list[Arrays]) -> Samples:
        wanted = set(self.graph.outputs)
        return self._joined([self.graph.run(batch, wanted) for batch in batches])

    def _joined(self, results: list[Arrays]) -> Samples:
        rows = [[result[name] for name in self.graph.outputs] for result in results]
        return run_batches(lambda row: row, rows)

    @staticmethod
    def _followed(values: Samples, own: Samples) -> tuple[Samples, str]:
        pairs = list(zip(values, own, strict=True))
        if any(wide.shape != narrow.shape for wide, narrow in pairs):
            return own, "the first file itself; in float64 its outputs have other shapes"
        found = [np.where(np.isfinite(narrow), wide, narrow) for wide, narrow in pairs]
        same = all(np.array_equal(*p, equal_nan=True) for p in zip(values, found, strict=True))
        return found, TRUTHS[0 if same else 2]
