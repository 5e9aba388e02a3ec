"""One of two ONNX models that are compared."""

import os
from pathlib import Path

import onnx
import onnx_ir as ir

from ...foreign.opening import open_model
from ...runtime.session import LEVELS, OnnxRuntime, Samples, with_outputs
from ..file_runs import run_at_levels
from ..samples.kinds import Kinds
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
        self, names: list[str], wanted: list[str], kinds: Kinds, provider: str
    ) -> dict[str, list[Samples]]:
        """Run every kind of inputs, as `run_at_levels` does.

        Args:
            names: Names of the inputs, in the order of the arrays.
            wanted: Names of the outputs.
            kinds: The batches, by kind.
            provider: ONNX Runtime's execution provider.
        """
        runs = run_at_levels(lambda at: self.runtime(at, provider), names, kinds, wanted)
        return runs.kinds
