"""The built site in a real browser: each page fits, in light and in dark, and says no error."""

import re

import pytest

from tests.docs.pages import PAGES, ROOT
from tests.export.commands.pages.browser import visit

pytestmark = pytest.mark.slow

SITE = ROOT / "docs" / "_build" / "html"
UNSEEN = ("genindex.html", "search.html")  # Sphinx's own


@pytest.fixture(scope="module")
def pages():
    """The paths of the pages; the site is what `make docs` has built."""
    if not (SITE / "docs" / "index.html").exists():
        pytest.skip("needs the site: make docs")
    found = {path.relative_to(SITE).as_posix() for path in SITE.rglob("*.html")}
    found = {page for page in found if "_static" not in page} - {*UNSEEN, "index.html"}
    assert {page.replace(".md", ".html") for page in PAGES} <= found
    return sorted(found)


@pytest.mark.parametrize(("width", "dark"), [(400, False), (400, True), (800, True), (1400, False)])
def test_every_page_fits_and_says_no_error(width, dark, pages, tmp_path):
    seen, console = visit(SITE, pages, tmp_path, width=width, dark=dark)
    assert console == []
    assert sorted(seen) == pages
    for page, found in seen.items():
        assert (found["width"], found["needed"]) == (width, width), page
        assert found["headings"], page
        assert found["missing"] == [], page
        red, green, blue = map(int, re.findall(r"\d+", found["background"])[:3])
        assert (red + green + blue < 3 * 60) == dark, page


def test_faults_of_a_page_are_seen(tmp_path):
    wide = '<div style="width: 900px">wide</div><img src="missing.png">'
    text = f"<!doctype html><body><h1>One</h1>{wide}<script>nothing()</script></body>"
    (tmp_path / "page.html").write_text(text)
    seen, (line,) = visit(tmp_path, ["page.html"], tmp_path, width=400)
    assert seen["page.html"]["needed"] == 908  # and the margin
    assert seen["page.html"]["missing"][0].endswith("/missing.png")
    assert "nothing is not defined" in line
