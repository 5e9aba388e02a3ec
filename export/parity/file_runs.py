"""What ONNX Runtime makes of each kind of inputs with a file, plain and optimised."""

import dataclasses
from pathlib import Path

from ..defaults import CPU
from ..runtime.session import LEVELS, OnnxRuntime, Samples, require_as_many, run_batches
from .samples.kinds import Kinds

__all__ = ["FileRuns", "run_file"]


@dataclasses.dataclass(frozen=True)
class FileRuns:
    """Results of a file.

    Attributes:
        outputs: Names of the file's outputs.
        plain: For each kind all outputs, in that order, with its optimisations off.
        optimised: The same with them at their default.
    """

    outputs: list[str]
    plain: dict[str, Samples]
    optimised: dict[str, Samples]


def run_file(path: Path, inputs: list[str], kinds: Kinds, provider: str = CPU) -> FileRuns:
    """Run a file.

    Args:
        path: The file.
        inputs: Names of the inputs in the model.
        kinds: The batches of each kind.
        provider: ONNX Runtime's execution provider.

    Raises:
        ExportError: If it cannot be loaded or run, or has other inputs.
    """
    found = []
    for level in LEVELS:
        runtime = OnnxRuntime(path, level, provider)
        require_as_many("inputs", inputs, runtime.inputs)
        run = runtime.runner(inputs, runtime.outputs)
        found.append({kind: run_batches(run, batches) for kind, batches in kinds.items()})
        outputs = runtime.outputs
        del run, runtime  # one session's memory at a time
    return FileRuns(outputs, *found)
