"""The pages of README and docs/, and the blocks of code in them."""

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *sorted((ROOT / "docs").glob("*.md")),
    ]
}
FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        kind: The word behind the fence, such as "python".
        use: What else stands there, such as "picture: ..."; or "elsewhere", for what other tests
            run than `test_pages.py`.
        text: What it holds.
        follows: Whether nothing but space is between it and the block before.
    """

    kind: str
    use: str
    text: str
    follows: bool


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page, in order."""
    found, end = [], 0
    for match in FENCED.finditer(PAGES[page]):
        kind, text = match.groups()
        follows = bool(found) and not PAGES[page][end : match.start()].strip()
        kind, _, use = kind.partition(" ")
        found.append(Block(kind, use, text, follows))
        end = match.end()
    return found


def commands(page: str) -> list[str]:
    """Return the lines of a page's blocks for the shell, without comments; `\\` joins lines."""
    text = "".join(
        one.text for one in blocks(page) if one.kind == "sh" and one.use != "elsewhere"
    ).replace("\\\n", " ")
    lines = (re.sub(r"\s+#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
