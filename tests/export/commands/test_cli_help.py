"""The help of every command: examples that work, defaults, and 80 columns."""

import re
import shlex
from typing import get_args

import pytest
from typer.main import get_command

from keras_bn.export.__main__ import program
from keras_bn.export.commands.options import PRECISIONS
from keras_bn.export.parity.__main__ import program as parity_program
from keras_bn.export.stages.precision.report import Precision

COMMANDS = get_command(program()).commands
NAMES = ["bench", "check", "demo", "export", "fold", "inspect", "recalibrate"]


def test_commands_are_exactly_these():
    assert sorted(COMMANDS) == NAMES


@pytest.fixture
def page(run, monkeypatch):
    """Return a function that gives the help of a command as 80 columns show it."""
    monkeypatch.setenv("COLUMNS", "200")

    def text(*words):
        monkeypatch.setenv("COLUMNS", "80")
        done = run(*words, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return text


def examples_in(text, program="keras-bn"):
    lines = text.partition("Examples:")[2].splitlines()
    return [line.strip() for line in lines if line.strip().startswith(program)]


@pytest.mark.parametrize("name", NAMES)
def test_every_example_parses(page, name):
    examples = examples_in(page(name))
    assert examples == COMMANDS[name].epilog.splitlines()[1:]
    assert examples
    for example in examples:
        program, command, *words = shlex.split(example.partition(" > ")[0])
        assert (program, command) == ("keras-bn", name)
        COMMANDS[name].make_context(name, words)


def test_every_example_of_the_parity_script_parses():
    (command,) = [get_command(parity_program())]
    examples = command.epilog.splitlines()[1:]
    assert len(examples) == len(COMMANDS["check"].epilog.splitlines()) - 1
    for example in examples:
        words = shlex.split(example.partition(" > ")[0])
        assert words[:3] == ["python", "-m", "keras_bn.export.parity"]
        command.make_context("", words[3:])


@pytest.mark.parametrize("name", NAMES)
def test_help_fits_80_columns_and_shows_defaults(page, name):
    text = page(name)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "--json" in text
    assert "--quiet" in text
    for parameter in COMMANDS[name].params:
        if parameter.default not in (None, False) and parameter.name != "context":
            assert re.search(r"\[default:", text), parameter.name


def test_options_are_called_alike_in_every_command():
    meanings = {}
    for name, command in COMMANDS.items():
        for parameter in command.params:
            for option in parameter.opts:
                meanings.setdefault(option, {})[name] = parameter.help
    for option in ("--json", "--quiet", "-q", "--debug"):
        assert sorted(meanings[option]) == NAMES
    for option in ("--input", "--preprocess", "--unsafe", "--precision", "--json", "--quiet"):
        assert len(set(meanings[option].values())) == 1


def test_overview_names_every_command_and_the_exit_statuses(page):
    text = page()
    assert all(re.search(rf"^│ {name} ", text, re.MULTILINE) for name in NAMES)
    assert "Exit status: 0 agreed, 1 it differs, 2 bad input" in text


def test_precisions_of_the_command_line_are_those_of_the_export():
    """They stand there again, so that help and completion import no onnx."""
    assert get_args(Precision) == PRECISIONS
