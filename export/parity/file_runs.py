"""What ONNX Runtime makes of each kind of inputs with a file, plain and optimised."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..defaults import CPU
from ..runtime.session import LEVELS, OnnxRuntime, Samples, run_batches
from .samples.kinds import Kinds

__all__ = ["FileRuns", "run_at_levels", "run_file"]


@dataclasses.dataclass(frozen=True)
class FileRuns:
    """Results of a file.

    Attributes:
        outputs: Names of the outputs.
        kinds: For each kind the outputs, in that order, all batches joined, at each of `LEVELS`.
    """

    outputs: list[str]
    kinds: dict[str, list[Samples]]


def run_file(path: Path, inputs: list[str], kinds: Kinds, provider: str = CPU) -> FileRuns:
    """Run a file on an execution provider for all of its outputs, as `run_at_levels` does."""
    return run_at_levels(functools.partial(OnnxRuntime, path, provider=provider), inputs, kinds)


def run_at_levels(
    opened: Callable[[Any], OnnxRuntime],
    inputs: list[str],
    kinds: Kinds,
    outputs: list[str] | None = None,
) -> FileRuns:
    """Run a file on every kind of inputs.

    Args:
        opened: Opens it at one of `LEVELS`.
        inputs: Names of the inputs in what it is compared with, in the order of the arrays.
        kinds: The batches of each kind.
        outputs: Names of what is wanted, likewise; None for all that the file has.

    Raises:
        ExportError: If it cannot be loaded or run, or has other inputs or outputs.
    """
    found: dict[str, list[Samples]] = {kind: [] for kind in kinds}
    for level in LEVELS:
        runtime = opened(level)
        wanted = runtime.outputs if outputs is None else outputs
        runtime.require_interface(inputs, wanted)
        run = runtime.runner(inputs, wanted)
        for kind, batches in kinds.items():
            found[kind].append(run_batches(run, batches))
        del run, runtime  # one session's memory at a time
    return FileRuns(wanted, found)
