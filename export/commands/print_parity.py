"""A `ParityReport` -> text for a terminal: the verdict, then what it rests on, the worst case last.

Fits 80 columns, and says in words whatever it says in colour. A console without a terminal gets no
colour. Names come from files of strangers: nothing in them is obeyed, by rich or by the terminal.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ..parity.report import LayerParity, OutputParity, ParityReport
from .console import one_line_of

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_parity"]

LAYERS_BEFORE = 3  # the first bad layer
AGREES, DIFFERS, OTHER = "green", "bold red", "yellow"
STYLES = {"agrees": AGREES, "differs": DIFFERS, "rescaled": OTHER}


def print_parity(report: ParityReport, console: "Console") -> None:
    """Print a report.

    Args:
        report: What was found.
        console: Where to.
    """
    verdict = "agrees" if report.passed else "DIFFERS"
    style = f"bold {AGREES}" if report.passed else DIFFERS
    of_keras = all(row.own == "Keras" for row in report.outputs)
    other = f"model {report.model!r}" if of_keras else report.model
    text = one_line_of(f"{verdict}: {report.path} and {other}")
    console.print(Text(text, style=style), soft_wrap=True)
    if report.fault is not None:
        _say(console, report.fault.detail)
    for name in dict.fromkeys(row.name for row in report.outputs):
        headline = report.headline(name)
        if not headline.passed:
            _say(console, str(headline))
    console.print()
    console.print(_outputs(report))
    if report.stages:
        console.print()
        console.print(_stages(report))
    if report.layers:
        console.print()
        console.print(_layers(report.layers))
    console.print()
    for line in _basis(report):
        _say(console, line)


def _say(console: "Console", text: str) -> None:
    console.print(Text(one_line_of(text)))


def _table(*heads: str, names: int = 1) -> Table:
    """Return an empty table whose first columns hold names, and the others figures."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for i, head in enumerate(heads):
        if i < names:
            table.add_column(head, overflow="fold")
        else:
            table.add_column(head, justify="right", no_wrap=True)
    return table


def _add(table: Table, names: tuple[str, ...], figures: tuple[str | Text, ...]) -> None:
    table.add_row(*(Text(one_line_of(name)) for name in names), *figures)


def _outputs(report: ParityReport) -> Table:
    providers = dict.fromkeys(row.provider for row in report.outputs)
    several = len(providers) > 1
    table = _table(
        *("output", "inputs", *(["provider"] if several else [])),
        *(
            ("Keras" if report.outputs[0].own == "Keras" else "first"),
            "plain",
            "optim.",
            "allowed",
            "RMS",
            "same",
            "",
        ),
        names=2 + several,
    )
    for row in report.outputs:
        names = (row.name, row.case, *([row.provider] if several else []))
        _add(table, names, _figures(row))
    return table


def _figures(row: OutputParity) -> tuple[str | Text, ...]:
    def judged(error: float, allowed: float) -> Text:
        return Text(f"{error:.1e}", style="" if error <= allowed < float("inf") else DIFFERS)

    share = row.argmax_agreement
    rms = max(row.onnx.rms, row.optimised.rms)
    return (
        f"{row.keras.max:.1e}",
        judged(row.onnx.max, row.tolerance),
        judged(row.optimised.max, row.tolerance),
        f"{row.tolerance:.1e}",
        judged(rms, row.rms_tolerance),
        "" if share is None else f"{_share(share)}",
        _verdict("agrees" if row.passed else "DIFFERS"),
    )


def _share(share: float) -> str:
    """Return a share in percent, never rounded up to all.

    Example:
        >>> _share(1.0), _share(0.9999), _share(0.5)
        ('100%', '99.9%', '50.0%')
    """
    return "100%" if share == 1.0 else f"{int(1000 * share) / 10:.1f}%"


def _verdict(word: str) -> Text:
    return Text(word, style=STYLES[word.lower()])


def _stages(report: ParityReport) -> Table:
    table = _table("stage", "output", "error", "", names=2)
    for row in report.stages:
        verdict = _verdict("agrees" if row.passed else "DIFFERS")
        _add(table, (row.stage, row.output), (f"{row.error:.1e}", verdict))
    return table


def _layers(layers: tuple[LayerParity, ...]) -> Table:
    table = _table("layer", "tensor", "Keras", "file", "allowed", "", names=2)
    shown, last = _interesting(layers), -1
    for i in [*shown, len(layers)]:
        if i > last + 1:
            left_out = i - last - 1
            table.add_row(f"... {left_out} more", style="dim")
        last = i
        if i == len(layers):
            break
        row = layers[i]
        figures = (f"{row.keras:.1e}", f"{row.onnx:.1e}", f"{row.tolerance:.1e}")
        verdict = _verdict("DIFFERS" if row.status == "differs" else row.status)
        _add(table, (row.layer, row.value), (*figures, verdict))
    return table


def _interesting(layers: tuple[LayerParity, ...]) -> list[int]:
    """Return the places of the first layer that differs, a few before it, and the worst one."""

    def excess(i: int) -> tuple[int, float]:
        row = layers[i]
        rank = ("rescaled", "agrees", "differs").index(row.status)
        return rank, row.onnx / row.tolerance if row.tolerance else 0.0

    places = range(len(layers))
    first = next((i for i in places if layers[i].status == "differs"), None)
    chosen = {max(places, key=excess)}
    if first is not None:
        chosen |= set(places[max(first - LAYERS_BEFORE, 0) : first + 1])
    return sorted(chosen)


def _basis(report: ParityReport) -> Iterator[str]:
    """Yield what the figures mean, what they rest on, and the notes."""
    yield (
        f"Largest errors, relative to the output's scale: of {report.outputs[0].own} itself, and "
        "of ONNX Runtime with its optimisations off (plain) and on; root mean square (RMS) of the "
        "larger; samples in the same class."
    )
    if report.layers:
        yield (
            "Of the layers, the nearest to its limit, and those up to the first that differs; "
            "--html and --json have all."
        )
    yield from report.measured_on
    for name, words in report.drawn.items():
        yield f"{name}: {words}"
    if report.seed is not None:
        yield f"seed {report.seed}"
    for note in report.notes:
        yield f"note: {note}"
