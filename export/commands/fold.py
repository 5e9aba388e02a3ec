"""`keras-bn fold`: fold the batch norms of an ONNX file from any exporter; needs no TensorFlow."""

import contextlib
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..defaults import CPU
from ..errors import ExportError
from ..files.arrays_file import load_samples, named_after
from ..files.paths import require_another_file, require_file
from .console import answer, print_text, progress
from .options import (
    DebugOption,
    InputShapesOption,
    JsonOption,
    QuietOption,
    SamplesOption,
    examples,
    input_shapes,
)

if TYPE_CHECKING:
    import onnx_ir as ir
    from rich.console import Console

    from ..foreign.opening import Opened
    from ..parity.report import ParityReport
    from ..runtime.latency import Latency
    from ..stages.folding.report import FoldReport

__all__ = ["EXAMPLES", "fold"]

EXAMPLES = examples(
    "keras-bn fold model.onnx folded.onnx",
    "keras-bn fold model.onnx --dry-run",
    "keras-bn fold model.onnx folded.onnx --input-shape image=1x3x48x320",
    "keras-bn fold model.onnx folded.onnx --time",
    "keras-bn fold model.onnx folded.onnx --json > folds.json",
)


def fold(
    model: Annotated[Path, typer.Argument(metavar="IN.onnx", help="An ONNX file.")],
    out: Annotated[
        Path | None,
        typer.Argument(metavar="[OUT.onnx]", help="The file to write.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; just report.")] = False,
    freeze: Annotated[
        bool, typer.Option("--freeze", help="Weights that are inputs too become constants.")
    ] = False,
    check: Annotated[
        bool, typer.Option(help="Compare with IN.onnx in ONNX Runtime before OUT.onnx appears.")
    ] = True,
    time: Annotated[
        bool, typer.Option("--time", help="Time IN.onnx and OUT.onnx in ONNX Runtime, one thread.")
    ] = False,
    samples: SamplesOption = None,
    shapes: InputShapesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Fold the batch norms of an ONNX file, whoever exported it, into the operators around them.

    Every BatchNormalization, and every constant Mul, Add, Sub or Div, is
    listed: folded, or left and why. OUT.onnx appears whole or not at all; if
    nothing folds it is a copy. Large weights go to a file beside it if they
    come from one. Nothing is written if ONNX Runtime finds that it computes
    something else; the exit status is 1 then.
    """
    del debug
    _require_paths(model, out, dry_run=dry_run, time=time)
    options = _options_of_check(samples, shapes or [])
    with progress(shown=not (as_json or quiet)) as step:
        done = _fold(model, None if dry_run else out, options, step, freeze, check, time)
    answer(done.to_dict, done.show, as_json=as_json, quiet=quiet)


@dataclasses.dataclass(frozen=True)
class _Done:
    """What the command has made, to be told."""

    source: Path
    target: Path | None
    size: int
    size_out: int | None
    is_copy: bool
    report: "FoldReport"
    parity: "ParityReport | None"
    latency: "Latency | None"

    def to_dict(self) -> dict[str, Any]:
        out = None if self.target is None else str(self.target)
        content = {"path": str(self.source), "size": self.size, "out": out}
        content["out_size"] = self.size_out
        if self.parity is not None:
            content["parity"] = {**self.parity.to_dict(), "path": out}
        if self.latency is not None:
            content["latency"] = dataclasses.asdict(self.latency)
        return {**content, **self.report.to_dict()}

    def show(self, console: "Console") -> None:
        notes = () if self.parity is None else self.parity.notes
        lines = [self.report.table(), self._end(), *(f"note: {note}" for note in notes)]
        print_text("\n".join(lines), console)
        if self.latency is not None:
            from .print_latency import print_latency

            print_latency(self.latency, CPU, console)

    def _end(self) -> str:
        """Return the last line of the text."""
        if self.target is None:
            return f"{self.source}: {self.size:,} bytes; nothing was written"
        what = "a copy, nothing was folded" if self.is_copy else f"{self.size:,} before"
        end = f"{self.target}: {self.size_out:,} bytes, {what}"
        if self.parity is None:
            return end
        row = max(self.parity.outputs, key=lambda row: row.worst.max / row.tolerance)
        return (
            f"{end}; agrees in ONNX Runtime: largest error {row.worst.max:.1e} of the output's "
            f"scale, allowed {row.tolerance:.1e}"
        )


def _fold(
    source: Path,
    target: Path | None,
    options: dict[str, Any],
    step: Callable[[str], None],
    freeze: bool,
    check: bool,
    time: bool,
) -> _Done:
    """Fold a file; write, compare and time what becomes of it, where `target` is given."""
    from ..files.whole_file import replacing
    from ..foreign.fold_opened import fold_opened
    from ..foreign.opening import open_model
    from ..foreign.weight_files import external_tensors

    parity, latency, size_out = None, None, None
    with replacing(target) if target is not None else contextlib.nullcontext() as temporary:
        step(f"folding {source}")
        opened = open_model(source)
        _require_named(options["input_shapes"], opened)
        if "inputs" in options:
            names = [str(value.name) for value in opened.inputs]
            options["inputs"] = named_after(options["inputs"], names, opened.outputs)
        files = {source, *(Path(tensor.path) for tensor in external_tensors(opened.model))}
        size = sum(path.stat().st_size for path in files)
        folded, report = fold_opened(opened, freeze=freeze)
        if temporary is not None:
            size_out = _write(opened, folded, source, temporary)
            if check and folded is not None:
                step(f"comparing with {source}")
                from ..parity.graphs.proof import prove_fold

                with _advising("To fold without a proof, pass --no-check.", temporary):
                    parity = prove_fold(source, temporary, **options)
            if time:
                step(f"timing {source}")
                from ..parity.graphs.latencies import time_fold

                with _advising("To fold without timing, leave out --time.", temporary):
                    latency = time_fold(source, temporary, **options)
    return _Done(source, target, size, size_out, folded is None, report, parity, latency)


def _require_paths(model: Path, out: Path | None, *, dry_run: bool, time: bool) -> None:
    """Raise unless the paths and options fit together, before anything runs."""
    require_file(model, "IN.onnx")
    if out is None and not dry_run:
        raise ExportError("OUT.onnx must be given. Received: none. Or pass --dry-run.")
    if out is not None:
        require_another_file(out, "OUT.onnx", (model, "IN.onnx"))
    if time and dry_run:
        raise ExportError(
            "--time must be left out where nothing is written. Received: --time and --dry-run. "
            "`keras-bn bench IN.onnx` times a file and its fold."
        )


def _options_of_check(samples: Path | None, shapes: list[str]) -> dict[str, Any]:
    """Return what to compare on, having read it."""
    options: dict[str, Any] = {"input_shapes": input_shapes(shapes, samples)}
    if samples is not None:
        options["inputs"] = load_samples(samples)
    return options


def _require_named(shapes: dict[str, list[int]], opened: "Opened") -> None:
    names = [str(value.name) for value in opened.inputs]
    for name in shapes:
        if name not in names:
            raise ExportError(
                f"--input-shape must be of an input of IN.onnx, {names}. Received: {name!r}."
            )


@contextlib.contextmanager
def _advising(advice: str, temporary: Path) -> Iterator[None]:
    """Add to an error what to do about it, and name the file as the command line does."""
    try:
        yield
    except ExportError as e:
        raise ExportError(f"{e} {advice}".replace(str(temporary), "OUT.onnx")) from e


def _write(opened: "Opened", folded: "ir.Model | None", source: Path, target: Path) -> int:
    """Write the folded model, or a copy of the file; return its size in bytes."""
    from ..errors import invalid_model
    from ..files.onnx_file import InvalidGraphError, write
    from ..foreign.fold_opened import why_invalid
    from ..foreign.weight_files import external_tensors, read_small

    external = bool(external_tensors(opened.model))
    if folded is None and not external:
        return _copy(opened, source, target)
    if folded is None and opened.lost:
        raise ExportError(
            f"fold: a model with weights in other files cannot be copied if it holds "
            f"{' and '.join(opened.lost)}. Received: {opened.source}. Nothing in it folds; use it "
            "as it is."
        )
    model = opened.model if folded is None else folded
    read_small(model)
    try:
        return write(model, target, external_data=external or None)
    except InvalidGraphError as e:  # what was given is asked only now: that takes time
        why = why_invalid(opened)
        if why is None:
            raise
        raise invalid_model(opened.source, why) from e


def _copy(opened: "Opened", source: Path, target: Path) -> int:
    import onnx

    from ..errors import invalid_model

    try:
        onnx.checker.check_model(source)
    except onnx.checker.ValidationError as e:
        raise invalid_model(opened.source, str(e).strip().splitlines()[0]) from e
    try:
        shutil.copyfile(source, target)
    except OSError as e:
        raise ExportError(
            f"OUT.onnx must be on a disk with room for it. Received: {e.strerror or e}. "
            "Choose another path."
        ) from e
    return target.stat().st_size
