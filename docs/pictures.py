"""Pictures of the code that is shown.

A block that begins with ```` ```python picture: WORDS ```` runs while the site is built, and behind
it stands the matplotlib figure that it calls `figure`, with WORDS for those who cannot see it.
"""

import contextlib
import io
import re
from pathlib import Path
from typing import Any

__all__ = ["draw_pictures", "take_figure"]

BLOCK = re.compile(r"^```python picture: (.+)\n((?s:.*?))^```$", re.MULTILINE)
STYLE = {"font.size": 9, "figure.figsize": (7, 3.2), "svg.hashsalt": "keras-bn"}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False}


def draw_pictures(app: Any, page: str, content: list[str]) -> None:
    """Run a page's blocks that draw, and put a picture behind each.

    Args:
        app: Sphinx, for its source folder.
        page: Name of the page, such as "docs/why".
        content: The page's text, replaced.
    """
    folder = Path(app.srcdir) / "docs" / "generated" / "pictures"

    def drawn(block: re.Match[str]) -> str:
        words, code = block.groups()
        name = f"{Path(page).name}-{block.start()}.svg"
        folder.mkdir(parents=True, exist_ok=True)
        _draw(code, folder / name)
        return f"```python\n{code}```\n\n![{words}](/docs/generated/pictures/{name})"

    content[0] = BLOCK.sub(drawn, content[0])


def _draw(code: str, path: Path) -> None:
    """Run code and save its figure; without a date, so that the same figure is the same file."""
    import matplotlib as mpl

    mpl.use("agg")
    with mpl.rc_context(STYLE), contextlib.redirect_stdout(io.StringIO()):
        namespace: dict[str, Any] = {}
        exec(compile(code, path.stem, "exec"), namespace)  # noqa: S102  # the pages are ours
        figure = namespace["figure"]
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def take_figure(block: Any, variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """Return what puts a figure behind a block of a worked example that assigns `figure`.

    Args:
        block: Of sphinx-gallery, its text second.
        variables: Where the block left its names, and the paths for its pictures.
        settings: Of the gallery.
    """
    from sphinx_gallery.scrapers import figure_rst

    if not re.search(r"^figure\b.* = ", block[1], re.MULTILINE):
        return ""
    path = next(variables["image_path_iterator"])
    variables["example_globals"]["figure"].savefig(path, dpi=120)
    return str(figure_rst([path], settings["src_dir"]))
