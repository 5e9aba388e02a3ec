"""README and CONTRIBUTING say what is there; `test_pages.py` runs their code."""

import re
import tomllib

import pytest

from keras_bn import __version__
from tests.docs.pages import PAGES, ROOT, blocks

README = PAGES["README.md"]
LINES = 110  # about a screen and a half


def test_readme_is_short():
    assert len(README.splitlines()) <= LINES
    (example,) = (one.text for one in blocks("README.md") if one.kind == "python")
    code = [line for line in example.splitlines() if line and not line.startswith("#")]
    assert len(code) <= 12


def test_ratios_are_those_of_the_pages():
    """Each is a figure of the tables behind it, rounded, and a command redoes it."""
    table = re.search(r"(?:^\|.*\|\n)+", README, re.MULTILINE)[0].splitlines()[2:]
    pages = PAGES["docs/benchmarks.md"] + PAGES["docs/statistics.md"]
    measured = [float(figure) for figure in re.findall(r"\b\d+\.\d+\b", pages)]
    assert len(table) == 4
    for row in table:
        _, claim, command = row.strip("| ").split(" | ")
        figures = re.findall(r"\d+\.\d+", claim)
        assert figures
        assert re.fullmatch(r"`python -m (benchmarks|examples)\.\w+`", command)
        for figure in figures:
            digits = len(figure.partition(".")[2])
            assert any(f"{value:.{digits}f}" == figure for value in measured), figure


def test_changelog_is_of_this_version():
    assert PAGES["CHANGELOG.md"].splitlines()[2].startswith(f"## {__version__} - ")


def test_extras_exist():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    for page in PAGES.values():
        for named in re.findall(r"keras-bn\[([\w,]+)\]", page):
            assert set(named.split(",")) <= set(extras)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\(([\w./-]+\.md)[)#]", PAGES[page]):
        path = (ROOT / page).parent / link
        assert path.exists() or "generated" in link, link


def test_places_that_a_contributor_is_sent_to_exist():
    folders = [ROOT / name for name in ("keras_bn", "export", "models", "tests")]
    for place in re.findall(r"`([\w/]+(?:\.py|/))`", PAGES["CONTRIBUTING.md"]):
        inside = (found for folder in folders for found in folder.rglob(place))
        assert (ROOT / place).exists() or next(inside, None), place
