"""The page of a proof, which shares with the command what that has done.

Nothing here imports TensorFlow before it is asked to.
"""

import contextlib
import datetime
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import ExportError
from .writing import replacing_page

if TYPE_CHECKING:
    import keras

    from ...parity.report import ParityReport
    from ...stages.converted import StageFiles
    from ..benched import Bench

__all__ = ["ParityPage", "parity_page"]


class ParityPage:
    """A page that a command writes of its proof, or none."""

    def __init__(self, target: Path | None, folder: Path) -> None:
        self._target, self._folder = target, folder

    @functools.cached_property
    def stages(self) -> "StageFiles":
        """The stages of the model's export, for the command and the page to share."""
        from ...stages.conversion import convert
        from ...stages.converted import StageFiles

        return StageFiles(self._folder, convert, wanted=self._target is not None)

    def write(
        self,
        report: "ParityReport",
        model: "keras.Model",
        step: Callable[[str], None],
        *,
        source: Path,
        file: Path | None,
        command: str,
    ) -> None:
        """Measure latencies and write the page, if there is to be one.

        Args:
            report: What was found.
            model: The model.
            step: Takes what is being done, in words.
            source: The file that the model is from.
            file: The ONNX file; None if it was not written.
            command: The command that asks for it.
        """
        if self._target is None:
            return
        step("measuring latencies for the page")
        from ...files.provenance import SourceFile
        from .parity_page import ParityDocument, render_parity_page

        bench = self._bench(model, source, file)
        document = ParityDocument(
            report=report,
            model=SourceFile.of(source),
            file=None if file is None else SourceFile.of(file),
            fold=bench.fold if bench else None,
            latency=bench.latency if bench else None,
            command=command,
            created=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        )
        page = render_parity_page(document)
        self._target.write_text(page, encoding="utf-8", errors="replace")

    def _bench(self, model: "keras.Model", source: Path, file: Path | None) -> "Bench | None":
        """Return the latencies and folds; None where the model cannot be exported any more."""
        from ..timing import bench_keras

        try:
            return bench_keras(model, source, self.stages, file=file)
        except ExportError:
            return None


@contextlib.contextmanager
def parity_page(target: Path | None, *files: tuple[Path, str]) -> Iterator[ParityPage]:
    """Give a page to be written, or one that writes nothing if there is to be none.

    Args:
        target: Where to.
        files: The files that it must not be, each with what the command calls it.
    """
    with replacing_page(target, "PAGE.html", *files) as temporary:
        from ...files.whole_file import scratch_folder  # imports onnx

        with scratch_folder() as folder:
            yield ParityPage(temporary, folder)
