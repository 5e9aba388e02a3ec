"""One of two ONNX models that are compared."""

import os
from pathlib import Path

import onnx
import onnx_ir as ir

from ...foreign.opening import open_model
from ...runtime.session import LEVELS, OnnxRuntime, Samples, run_batches, with_outputs
from .float64 import Arrays

__all__ = ["OnnxSource", "Side"]

OnnxSource = onnx.ModelProto | ir.Model | str | os.PathLike[str]


class Side:
    """One of the two models.

    Args:
        source: Where it is.
        called: What errors call it.
        like: What errors say that it must be like.

    Attributes:
        name: The path, or what it is.
        proto: The model, with its weights in it.
    """

    def __init__(self, source: OnnxSource, called: str, like: str) -> None:
        opened = open_model(source, where="check")
        self.name = str(source) if isinstance(source, str | os.PathLike) else called
        self._called, self._like = called, like
        self._path: Path | None = None
        if isinstance(source, str | os.PathLike):
            self._path = Path(source)
            self.proto = onnx.load(self._path)
        elif isinstance(source, onnx.ModelProto):
            self.proto = source
        else:
            self.proto = ir.to_proto(opened.model)

    def watch(self, names: list[str]) -> None:
        """Let some tensors be outputs too, behind its own."""
        if names:
            proto = onnx.ModelProto()
            proto.CopyFrom(self.proto)
            proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
            self.proto, self._path = proto, None

    def runtime(self, level: object, provider: str) -> OnnxRuntime:
        """Open it in ONNX Runtime."""
        source = self._path or self.proto.SerializeToString()
        return OnnxRuntime(source, level, provider, name=self._called, like=self._like)

    def values(self, names: list[str], inputs: Arrays) -> Arrays:
        """Return some tensors of the graph, with ONNX Runtime's optimisations off."""
        run = OnnxRuntime(with_outputs(self.proto, names), LEVELS[0]).runner(list(inputs), names)
        return dict(zip(names, run(list(inputs.values())), strict=True))

    def outputs(
        self, names: list[str], wanted: list[str], kinds: dict[str, list[Samples]], provider: str
    ) -> dict[str, list[Samples]]:
        """Run every kind of inputs.

        Args:
            names: Names of the inputs, in the order of the arrays.
            wanted: Names of the outputs.
            kinds: The batches, by kind.
            provider: ONNX Runtime's execution provider.

        Returns:
            For each kind the outputs, all batches joined, at each of `LEVELS`.
        """
        found: dict[str, list[Samples]] = {kind: [] for kind in kinds}
        for level in LEVELS:
            runtime = self.runtime(level, provider)
            runtime.require_interface(names, wanted)
            run = runtime.runner(names, wanted)
            for kind, batches in kinds.items():
                found[kind].append(run_batches(run, batches))
            del run, runtime  # one session's memory at a time
        return found
