"""A page beside what a command does: refused early, written whole.

Nothing here imports TensorFlow before it is asked to.
"""

import contextlib
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keras_bn.importing import why_not_found

from ...errors import ExportError
from ...files.paths import require_another_file

__all__ = ["ParityPage", "replacing_page", "require_page_extra"]


if TYPE_CHECKING:
    import keras

    from ...parity.report import ParityReport
    from ...stages.converted import StageFiles
    from ..timing import Bench


class ParityPage:
    """A page that a command writes of its proof, or none.

    Attributes:
        stages: The stages of the model's export, for the command and the page to share.
    """

    def __init__(self, target: Path | None, stages: "StageFiles") -> None:
        self._target, self.stages = target, stages

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
            return bench_keras(model, source, file=file, stages=self.stages)
        except ExportError:
            return None


@contextlib.contextmanager
def replacing_page(page: Path | None, *files: tuple[Path, str]) -> Iterator[ParityPage]:
    """Give a page to be written, or one that writes nothing if there is to be none.

    Args:
        page: Where to.
        files: The files that it must not be, each with what the command calls it.
    """
    if page is not None:
        require_another_file(page, "PAGE.html", *files)
        require_page_extra()
    from ...files.whole_file import replacing, scratch_folder  # imports onnx
    from ...stages.converted import StageFiles

    kept = contextlib.nullcontext() if page is None else replacing(page)
    with scratch_folder() as folder, kept as temporary:
        yield ParityPage(temporary, StageFiles(folder, wanted=page is not None))


def require_page_extra() -> None:
    """Raise `ExportError` unless the package that pages are made with is installed."""
    try:
        import jinja2  # noqa: F401
    except ModuleNotFoundError as e:
        raise ExportError(f"--html needs {why_not_found(e, 'report')}") from e
