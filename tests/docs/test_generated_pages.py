"""The pages that the program and the packages tell: nothing is left out, and code stays code."""

import sys

import keras_bn
import keras_bn.export
from tests.docs.pages import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import generated_pages
from typer.main import get_command

COMMANDS = get_command(generated_pages.program()).commands


def test_page_of_the_command_line_has_every_word():
    page = generated_pages.command_line()
    for name, command in COMMANDS.items():
        _, _, section = page.partition(f"## keras-bn {name}\n")
        section = section.partition("\n## ")[0]
        for parameter in command.params:
            named = [parameter.metavar] if parameter.param_type_name == "argument" else []
            for word in named or [*parameter.opts, *parameter.secondary_opts]:
                assert f"`{word}" in section or parameter.name == "context", (name, word)
        assert all(line in section for line in command.epilog.splitlines()[1:])


def test_page_of_the_api_has_every_public_name():
    page = generated_pages.api()
    for package in (keras_bn, keras_bn.export):
        for name in package.__all__:
            if not name.startswith("__"):
                assert page.count(f":: {package.__name__}.{name}\n") == 1


def test_pages_are_written_where_they_are_new(tmp_path):
    generated_pages.write_pages(tmp_path / "pages")
    (path, *_) = (tmp_path / "pages").glob("*.md")
    before = path.stat().st_mtime_ns
    generated_pages.write_pages(tmp_path / "pages")
    assert path.stat().st_mtime_ns == before
    path.write_text("old")
    generated_pages.write_pages(tmp_path / "pages")
    assert path.read_text() != "old"


def test_equations_become_code_and_sections_stay():
    lines = ["Title.", "", "    y = x", "    z = y", "", "    w = z", "", "Text.", "", "Args:"]
    section = ["    x: One.", "", "    y: Two."]
    found = [*lines, *section]
    generated_pages.format_docstring(None, "", "", None, None, found)
    block = ["Title.", "", "::", "", "    y = x", "    z = y", "", "    w = z", "", "Text.", ""]
    assert found == [*block, "Args:", *section]
