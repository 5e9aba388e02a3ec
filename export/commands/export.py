"""`keras-bn export`: a Keras model becomes an ONNX file with its batch norms folded, and proven."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..defaults import DEFAULT_OPSET, OPSETS
from ..errors import ExportError
from ..files.keras_file import open_keras_file
from ..files.paths import require_another_file, require_folder
from ..parity.report import ParityError
from .console import DIFFERS, answer, command_of, progress
from .model_and_samples import load_with_samples, named_samples, samples_from
from .options import (
    DebugOption,
    JsonOption,
    ModelArgument,
    PageOption,
    PrecisionOption,
    PreprocessOption,
    QuietOption,
    SamplesOption,
    UnsafeOption,
    examples,
)
from .pages.proof import parity_page

if TYPE_CHECKING:
    from rich.console import Console

    from ..parity.report import ParityReport
    from ..report import ExportReport

__all__ = ["EXAMPLES", "export"]

EXAMPLES = examples(
    "keras-bn export model.keras model.onnx",
    "keras-bn export model.keras model.onnx --input samples.npz",
    "keras-bn export model.keras model.onnx --precision float16",
    "keras-bn export model.keras model.onnx --inputs-as-nchw image --opset 17",
    "keras-bn export model.keras model.onnx --no-check --quiet",
)


def _require_opset(opset: int) -> int:
    """Refuse a version before TensorFlow starts; a range of typer's would crowd the help."""
    if opset not in OPSETS:
        raise ExportError(f"--opset must be from {OPSETS[0]} to {OPSETS[-1]}. Received: {opset}.")
    return opset


def _second(what: str) -> Any:
    help_text = f"{what} with its channels at axis 1; repeatable."
    return typer.Option(metavar="NAME", help=help_text, show_default="none")


def export(
    context: typer.Context,
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT.onnx", help="The file to write.")],
    samples: SamplesOption = None,
    preprocess: PreprocessOption = None,
    opset: Annotated[
        int, typer.Option(metavar="N", callback=_require_opset, help="Version of ONNX's operators.")
    ] = DEFAULT_OPSET,
    precision: PrecisionOption = "keep",
    inputs_as_nchw: Annotated[list[str] | None, _second("An input")] = None,
    outputs_as_nchw: Annotated[list[str] | None, _second("An output")] = None,
    external_data: Annotated[
        bool | None,
        typer.Option(
            help="Weights in a file of their own.",
            show_default="where one cannot hold them",
        ),
    ] = None,
    check: Annotated[bool, typer.Option(help="Prove that ONNX Runtime agrees with Keras.")] = True,
    html: PageOption = None,
    unsafe: UnsafeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Export a Keras model to ONNX with its batch norms folded, and prove that the two agree.

    OUT.onnx appears whole or not at all; if they differ it is not written, but
    the page is, and the exit status is 1.
    """
    del debug
    keras_file = open_keras_file(model, unsafe=unsafe)
    require_folder(out, "OUT.onnx")
    require_another_file(out, "OUT.onnx", (model, "MODEL.keras"), *named_samples(samples))
    if html is not None and not check:
        raise ExportError("--html must be left out with --no-check. Received: both. It is a proof.")
    if samples is not None and not check and precision != "float16":
        raise ExportError("--input must be left out with --no-check. Received: both.")
    names = keras_file.input_names, keras_file.output_names
    given = samples_from(samples, preprocess, *names)
    failure: ParityError | None = None
    with (
        progress(shown=not (as_json or quiet)) as step,
        parity_page(
            html, (model, "MODEL.keras"), (out, "OUT.onnx"), *named_samples(samples)
        ) as page,
    ):
        loaded, arrays, notes = load_with_samples(keras_file, given, step)
        from ..parity.samples.samples import Sampling
        from ..pipeline import export_keeping

        step(f"exporting {model}")
        try:
            report = export_keeping(
                Sampling(loaded, inputs=arrays, precision=precision),
                out,
                page.stages,
                opset=opset,
                inputs_as_nchw=inputs_as_nchw or (),
                outputs_as_nchw=outputs_as_nchw or (),
                external_data=external_data,
                check=check,
            )
            parity = report.parity
        except ParityError as e:
            failure, parity = e, e.report
        if parity is not None:
            parity = dataclasses.replace(parity, notes=(*notes, *parity.notes))
            page.write(
                parity,
                loaded,
                step,
                source=model,
                file=None if failure else out,
                command=command_of(context),
            )
    if failure is not None and parity is not None:
        _answer_differs(parity, out, as_json=as_json, quiet=quiet)
        if quiet and not as_json:
            raise failure  # which says it in one line
        raise typer.Exit(DIFFERS)
    report = dataclasses.replace(report, parity=parity)
    answer(
        lambda: {"written": True, "passed": parity and parity.passed, **report.to_dict()},
        lambda console: _print(report, console),
        as_json=as_json,
        quiet=quiet,
    )


def _answer_differs(parity: "ParityReport", out: Path, **how: Any) -> None:
    from .console import print_text
    from .print_parity import print_parity

    def show(console: "Console") -> None:
        print_parity(parity, console)
        print_text(f"{out} was not written. --no-check writes it all the same.", console)

    answer(
        lambda: {
            "written": False,
            "passed": False,
            "path": str(out),
            "parity": parity.to_dict(),
        },
        show,
        **how,
    )


def _print(report: "ExportReport", console: "Console") -> None:
    from .console import print_text
    from .print_parity import print_parity

    if report.parity is None:
        print_text(str(report), console)
        return
    print_text(str(report).removesuffix(str(report.parity)), console)
    print_parity(report.parity, console)
