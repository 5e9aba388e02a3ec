"""The pages that nobody writes: the command line, told by the program, and the API by its names."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

import keras_bn
import keras_bn.export
import keras_bn.models
from keras_bn.export.__main__ import program

__all__ = ["format_docstring", "write_pages"]

API_INTRODUCTION = """# API reference

What `keras_bn` and `keras_bn.export` offer. Every name is imported from these two; the modules
behind them may move. Each docstring's examples run as tests.
"""
COMMAND_INTRODUCTION = """# Command line

`pip install "keras-bn[export]"` installs the program `keras-bn`. This page is made from the
program itself, so it says what `keras-bn COMMAND --help` says.

Every command takes `--json` (one object and nothing else), `--quiet` and `--help`. Files from
strangers are opened in Keras's safe mode, which is weaker before Keras 3.12
([why](../parity.md#files-from-strangers)), and within bounds; code in a model runs only with
`--unsafe`. The command imports no classes of yours: export a model that has some from Python.

Exit status: 0 agreed or done, 1 they differ, 2 something is wrong with the input (one line says
what), 3 an error of the program, 130 interrupted. `keras-bn --install-completion` teaches your
shell.
"""
SECTION = re.compile(
    r"(Args|Arguments|Attributes|Example|Examples|Raises|Reference|Returns|Yields):"
)
REPORTS = re.compile(r"(Report|Parity|Fold|Refusal|Weights|Kernel|Cause|Reason)$")


def write_pages(folder: Path) -> None:
    """Write the pages where they are new, so that Sphinx reads only what has changed.

    Args:
        folder: For them; made if missing.
    """
    folder.mkdir(exist_ok=True)
    for name, text in (("command_line", command_line()), ("api", api())):
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def command_line() -> str:
    """Return the page of the command line: for each command its text, words and examples."""
    commands = get_command(program()).commands.items()
    rows = [f"| [`{name}`](#keras-bn-{name}) | {_summary(command)} |" for name, command in commands]
    table = ["| command | what it does |", "|---|---|", *rows, ""]
    sections = (_command(name, command) for name, command in commands)
    return "\n".join([COMMAND_INTRODUCTION, *table, *sections])


def _summary(command: Any) -> str:
    return _plain(command.help.partition("\n\n")[0])


def _command(name: str, command: Any) -> str:
    """Return the section of a command."""
    shown = [parameter for parameter in command.params if parameter.name != "context"]
    arguments = [one.metavar for one in shown if one.param_type_name == "argument"]
    usage = " ".join(["keras-bn", name, "[OPTIONS]", *arguments])
    text = "\n\n".join(_plain(part) for part in command.help.split("\n\n"))
    rows = map(_row, shown)
    table = ["| | what it is | default |", "|---|---|---|", *rows]
    examples = command.epilog.removeprefix("Examples:").strip()
    parts = (f"## keras-bn {name}", text, f"```text\n{usage}\n```", "\n".join(table))
    return "\n\n".join([*parts, f"```sh\n{examples}\n```\n"])


def _row(parameter: Any) -> str:
    """Return an argument or an option as a row of a table."""
    words = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        words = [parameter.metavar]
    elif not parameter.is_flag:
        words[-1] += f" {parameter.metavar}"
    default = parameter.show_default if isinstance(parameter.show_default, str) else ""
    if not default and parameter.default not in (None, False, True):
        default = str(parameter.default)
    named = ", ".join(f"`{word}`" for word in words)
    return f"| {named} | {_plain(parameter.help or '')} | {_plain(default)} |"


def _plain(text: str) -> str:
    """Return text as one line that Markdown leaves as it is."""
    return re.sub(r"([|*_<>\[\]])", r"\\\1", " ".join(text.split()))


def api() -> str:
    """Return the page that has every public name documented from its docstring."""
    return "\n".join([API_INTRODUCTION, *_package(keras_bn), *_package(keras_bn.export)])


def _package(package: Any) -> Iterator[str]:
    """Yield a package's names: what one calls first, then what that returns."""
    names = [name for name in package.__all__ if not name.startswith("__")]
    returned = [name for name in names if REPORTS.search(name) or name.endswith("Error")]
    yield f"## {package.__name__}\n"
    for name in [*(name for name in names if name not in returned), *returned]:
        kind = "autoclass" if isinstance(getattr(package, name), type) else "autofunction"
        yield f"### {name}\n"
        yield f"```{{eval-rst}}\n.. {kind}:: {package.__name__}.{name}"
        if kind == "autoclass":
            yield "   :members:"
        yield "```\n"


def format_docstring(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Make what a docstring indents before its first section a block of code: its equations."""
    del app, what, name, obj, options
    head = list(itertools.takewhile(lambda line: not SECTION.match(line), lines))
    rest, found = lines[len(head) :], []
    for before, line in zip(["", *head], head, strict=False):
        if line.startswith("    ") and not before.strip() and not _inside_block(found):
            found += ["::", ""]
        found.append(line)
    lines[:] = [*found, *rest]


def _inside_block(lines: list[str]) -> bool:
    """Return whether the last line with text is part of a block already."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.startswith("    ")
