"""A page beside what a command does: refused early, written whole.

Nothing here imports TensorFlow before it is asked to.
"""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keras_bn.importing import why_not_found

from ...errors import ExportError
from ...files.paths import require_another_file

__all__ = ["replacing_page", "require_page_extra", "write_parity_page"]


if TYPE_CHECKING:
    import keras

    from ...parity.report import ParityReport
    from ..timing import Bench


@contextlib.contextmanager
def replacing_page(page: Path | None, *files: tuple[Path, str]) -> Iterator[Path | None]:
    """Give a temporary path for a page, or None if there is to be none.

    Args:
        page: The page to write.
        files: The files that it must not be, each with what the command calls it.
    """
    if page is None:
        yield None
        return
    require_another_file(page, "PAGE.html", *files)
    require_page_extra()
    from ...files.whole_file import replacing  # imports onnx

    with replacing(page) as temporary:
        yield temporary


def write_parity_page(
    target: Path,
    report: "ParityReport",
    model: "keras.Model",
    *,
    source: Path,
    file: Path | None,
    command: str,
) -> None:
    """Measure latencies and write the page of a report.

    Args:
        target: Where to.
        report: What was found.
        model: The model.
        source: The file that it is from.
        file: The ONNX file; None if it was not written.
        command: The command that asks for it.
    """
    from ...files.provenance import SourceFile
    from .parity_page import ParityDocument, render_parity_page

    bench = _bench(model, source, file)
    document = ParityDocument(
        report=report,
        model=SourceFile.of(source),
        file=None if file is None else SourceFile.of(file),
        fold=bench.fold if bench else None,
        latency=bench.latency if bench else None,
        command=command,
        created=f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
    )
    target.write_text(render_parity_page(document), encoding="utf-8", errors="replace")


def _bench(model: "keras.Model", source: Path, file: Path | None) -> "Bench | None":
    """Return the latencies and folds; None where the model cannot be exported any more."""
    from ..timing import bench_keras

    try:
        return bench_keras(model, source, file=file)
    except ExportError:
        return None


def require_page_extra() -> None:
    """Raise `ExportError` unless the package that pages are made with is installed."""
    try:
        import jinja2  # noqa: F401
    except ModuleNotFoundError as e:
        raise ExportError(f"--html needs {why_not_found(e, 'report')}") from e
