"""A `Latency` -> a table for a terminal, and under what conditions it was measured."""

import os
import platform
from typing import TYPE_CHECKING

from rich.table import Table

from keras_bn.reporting import counted

from ..runtime.latency import Latency

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["machine", "print_latency"]


def machine() -> str:
    """Return what this machine is, in words."""
    return f"{platform.system()} on {platform.machine()}, {os.cpu_count()} processors"


def print_latency(latency: Latency, provider: str, console: "Console") -> None:
    """Print the times.

    Args:
        latency: The times, measured on this machine.
        provider: ONNX Runtime's execution provider.
        console: Where to.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("ms for a batch", "median", "quartiles", "per second", "ratio"):
        table.add_column(head, justify="left" if not table.columns else "right")
    for row in latency.timings:
        table.add_row(
            row.name,
            f"{row.median:.3f}",
            f"{row.low:.3f} to {row.high:.3f}",
            f"{1e3 * latency.batch_size / row.median:,.0f}",
            "" if row.ratio is None else f"{row.ratio:.2f}",
        )
    console.print(table)
    samples, threads = counted(latency.batch_size, "sample"), counted(latency.threads, "thread")
    console.print(
        f"Batches of {samples}, {latency.turns} turns, {threads}, {provider}. Ratios: how "
        "many times as long as the last one takes, the median over the turns. This machine "
        f"alone: {machine()}."
    )
