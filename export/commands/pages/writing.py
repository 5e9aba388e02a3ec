"""A page beside what a command does: refused early, written whole."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from keras_bn.importing import why_not_found

from ...errors import ExportError
from ...files.paths import require_another_file

__all__ = ["replacing_page"]


@contextlib.contextmanager
def replacing_page(
    page: Path | None, called: str, *files: tuple[Path, str]
) -> Iterator[Path | None]:
    """Give a temporary path for a page, or None if there is to be none.

    Args:
        page: The page to write.
        called: What the command calls it.
        files: The files that it must not be, each with what the command calls it.

    Raises:
        ExportError: If it is one of them, or what pages are made with is not installed.
    """
    if page is None:
        yield None
        return
    require_another_file(page, called, *files)
    try:
        import jinja2  # noqa: F401
    except ModuleNotFoundError as e:
        raise ExportError(f"--html needs {why_not_found(e, 'report')}") from e
    from ...files.whole_file import replacing  # imports onnx

    with replacing(page) as temporary:
        yield temporary
