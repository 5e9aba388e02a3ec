"""What a stage of the export leaves: a graph, which `StageFiles` keeps as a file."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import onnx_ir as ir

from ..files.onnx_file import write
from .folding.report import FoldReport
from .precision.report import PrecisionReport

__all__ = ["Converted", "StageFile", "StageFiles", "StageName"]

StageName = Literal["tracing", "layout", "folding", "precision"]
Convert = Callable[..., Iterator["Converted"]]


@dataclasses.dataclass(frozen=True)
class Converted:
    """The graph as a stage leaves it.

    Attributes:
        stage: The stage.
        graph: The graph; its nodes are named after the Keras layers.
        fold: What was folded so far.
        precision: What the graph computes in so far.
    """

    stage: StageName
    graph: ir.Model
    fold: FoldReport
    precision: PrecisionReport


@dataclasses.dataclass(frozen=True)
class StageFile:
    """A stage's graph on disk, and what was folded so far."""

    stage: StageName
    path: Path
    fold: FoldReport


class StageFiles:
    """The stages of one conversion, in files, for all who look at them to share.

    Args:
        folder: Where the files go, and may stay.
        convert: What converts a model, stage by stage.
        wanted: Whether somebody will look at them whatever comes of the conversion.

    Attributes:
        files: The stages so far, in order.
        complete: Whether these are all.
    """

    def __init__(self, folder: Path, convert: Convert, *, wanted: bool = False) -> None:
        self._folder, self._convert, self.wanted = folder, convert, wanted
        self.files: list[StageFile] = []
        self.complete = False

    def keep(
        self, stages: Iterable[Converted], metadata: Mapping[str, str] | None = None
    ) -> Iterator[Converted]:
        """Write each stage as it comes by.

        Args:
            stages: The conversion.
            metadata: What the files say of themselves, but for that of tracing, whose channels are
                last whatever those of the others are.
        """
        self.files = []
        for converted in stages:
            path = self._folder / f"{converted.stage}.onnx"
            told = None if converted.stage == "tracing" else metadata
            # Weights apart, so that whoever opens it leaves them on the disk.
            write(converted.graph, path, external_data=True, metadata=told)
            self.files.append(StageFile(converted.stage, path, converted.fold))
            yield converted
            del converted  # several graphs at once would be several times the weights
        self.complete = True

    def converted(
        self, model: Any, metadata: Mapping[str, str] | None = None, **options: Any
    ) -> Iterator[StageFile]:
        """Yield the stages of a model, which is converted unless that has been done.

        Args:
            model: The Keras model.
            metadata: As for `keep`.
            options: Those of `convert`.
        """
        if self.complete:
            yield from self.files
            return
        for converted in self.keep(self._convert(model, **options), metadata):
            del converted
            yield self.files[-1]

    def of(self, stage: StageName) -> Path:
        """Return the file of a stage."""
        return next(file.path for file in self.files if file.stage == stage)
