"""What the timing of a model in any form is made of, and told as."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExportError, one_line
from ..runtime.latency import Latency
from ..runtime.session import LEVELS, OnnxRuntime, Samples
from ..stages.folding.report import FoldReport
from .print_latency import print_latency

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Bench", "cannot_run", "print_bench", "runner_of", "size_of"]

SCHEMA = 1  # version of the JSON; rises when a field changes its meaning or goes


@dataclasses.dataclass(frozen=True)
class Bench:
    """How long a model takes.

    Attributes:
        path: The model file.
        provider: ONNX Runtime's execution provider.
        latency: The times.
        fold: What folding changed.
        machine: Where it was measured, in words.
        versions: Versions of what it was measured with, by name.
    """

    path: str
    provider: str
    latency: Latency
    fold: FoldReport
    machine: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-compatible data."""
        data = dataclasses.asdict(self)
        return {"schema": SCHEMA, **data, "fold": self.fold.to_dict()}


def runner_of(
    path: Path,
    inputs: list[str],
    outputs: list[str],
    batch: Samples,
    threads: int,
    provider: str,
) -> Callable[[], object]:
    """Return a function that runs a file on a batch, with ONNX Runtime's optimisations."""
    run = OnnxRuntime(path, LEVELS[-1], provider, threads=threads).runner(inputs, outputs)
    return lambda: run(batch)


def size_of(batch: Samples) -> int:
    """Return the number of samples in a batch."""
    return next((len(array) for array in batch if array.ndim), 1)


def cannot_run(source: str, batch: Samples, error: Exception) -> ExportError:
    """Return the error of a model that does not run on a batch."""
    return ExportError(
        "bench: the model must run on a drawn batch. "
        f"Received: {source!r}, on arrays of shape {[array.shape for array in batch]}: "
        f"{one_line(error)}."
    )


def print_bench(bench: Bench, console: "Console") -> None:
    """Print the times as a table.

    Args:
        bench: The times.
        console: Where to.
    """
    from .console import one_line_of

    title = f"{one_line_of(bench.path)}: {bench.fold.totals()}"
    console.print(title, soft_wrap=True, style="bold")
    print_latency(bench.latency, bench.provider, console)
