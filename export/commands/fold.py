"""`keras-bn fold`: fold the batch norms of an ONNX file from any exporter; needs no TensorFlow."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..defaults import CPU
from ..errors import ExportError
from ..files.arrays_file import load_samples
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
    options: dict[str, Any] = {"input_shapes": input_shapes(shapes or [], samples)}
    if samples is not None:
        options["inputs"] = load_samples(samples)
    from ..files.whole_file import replacing
    from ..foreign.fold_any import fold_opened
    from ..foreign.opening import open_model
    from ..foreign.weight_files import external_tensors

    writing = None if dry_run else out
    with (
        progress(shown=not (as_json or quiet)) as step,
        replacing(writing) if writing is not None else contextlib.nullcontext() as temporary,
    ):
        step(f"folding {model}")
        opened = open_model(model)
        _require_named(options["input_shapes"], opened)
        files = {model, *(Path(tensor.path) for tensor in external_tensors(opened.model))}
        before = sum(path.stat().st_size for path in files)
        folded, report = fold_opened(opened, freeze=freeze)
        parity = latency = None
        after = None if temporary is None else _write(opened, folded, model, temporary)
        if check and temporary is not None and folded is not None:
            step(f"comparing with {model}")
            from ..parity.graphs.proof import prove_fold

            with _advising("To fold without a proof, pass --no-check.", temporary):
                parity = prove_fold(model, temporary, **options)
        if time and temporary is not None:
            step(f"timing {model}")
            from ..parity.graphs.latencies import time_fold

            with _advising("To fold without timing, leave out --time.", temporary):
                latency = time_fold(model, temporary, **options)
    content: dict[str, Any] = {"path": str(model), "size": before, "out": None, "out_size": after}
    if writing is None:
        end = f"{model}: {before:,} bytes; nothing was written"
    else:
        content["out"] = str(writing)
        what = "a copy, nothing was folded" if folded is None else f"{before:,} before"
        end = f"{writing}: {after:,} bytes, {what}"
    if parity is not None:
        content["parity"] = {**parity.to_dict(), "path": str(writing)}
        row = max(parity.outputs, key=lambda row: row.worst.max / row.tolerance)
        end += (
            f"; agrees in ONNX Runtime: largest error {row.worst.max:.1e} of the output's scale, "
            f"allowed {row.tolerance:.1e}"
        )
    if latency is not None:
        content["latency"] = dataclasses.asdict(latency)

    def show(console: "Console") -> None:
        print_text(f"{report.table()}\n{end}", console)
        if latency is not None:
            from .print_latency import print_latency

            print_latency(latency, CPU, console)

    answer(
        lambda: {**content, **report.to_dict()},
        show,
        as_json=as_json,
        quiet=quiet,
    )


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
    from ..files.onnx_file import write
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
    return write(model, target, external_data=external or None)


def _copy(opened: "Opened", source: Path, target: Path) -> int:
    import onnx

    from ..foreign.origin import invalid_model

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
