"""`keras-bn check`: whether an ONNX file computes what a Keras model, or another one, does."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..defaults import CPU
from ..errors import ExportError
from ..files.keras_file import open_keras_file
from ..files.paths import require_file, require_no_keras_file
from .console import DIFFERS, answer, command_of, progress
from .model_and_samples import load_with_samples, named_samples, samples_from
from .options import (
    DebugOption,
    InputShapesOption,
    JsonOption,
    ModelArgument,
    PageOption,
    PrecisionOption,
    PreprocessOption,
    QuietOption,
    SamplesOption,
    UnsafeOption,
    examples,
    input_shapes,
    installed_providers,
    named_ranges,
)
from .pages.proof import parity_page
from .two_files import check_two_files, is_onnx

if TYPE_CHECKING:
    from ..parity.report import ParityReport

__all__ = ["EXAMPLES", "check"]

EXAMPLES = examples(
    "keras-bn check model.keras model.onnx",
    "keras-bn check model.keras model.onnx --input samples.npz",
    "keras-bn check model.keras model.onnx --input photos --preprocess resnet",
    "keras-bn check model.keras model.onnx --range image=0:255 --seed 7",
    "keras-bn check model.keras model.onnx --html proof.html",
    "keras-bn check model.keras model.onnx --json > report.json",
    "keras-bn check before.onnx after.onnx --input-shape image=1x3x48x320",
)


def check(
    context: typer.Context,
    model: ModelArgument,
    onnx: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="An ONNX file.")],
    samples: SamplesOption = None,
    preprocess: PreprocessOption = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Seed of the draws.", show_default="0"),
    ] = None,
    ranges: Annotated[
        list[str] | None,
        typer.Option(
            "--range",
            metavar="NAME=LOW:HIGH",
            help="Draw an input between two numbers; LOW:HIGH will do for a single input; "
            "repeatable.",
            show_default="from the layers that read it",
        ),
    ] = None,
    precision: PrecisionOption = "keep",
    providers: Annotated[
        list[str] | None,
        typer.Option(
            "--provider",
            metavar="NAME",
            help="Where ONNX Runtime computes, an execution provider of it; repeatable.",
            show_default="the CPU",
            autocompletion=installed_providers,
        ),
    ] = None,
    shapes: InputShapesOption = None,
    explain: Annotated[
        bool, typer.Option(help="Compare the stages of a fresh export, and every layer, too.")
    ] = True,
    html: PageOption = None,
    unsafe: UnsafeOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Compare an ONNX file with the Keras model it came from, both against float64.

    With an ONNX file in place of MODEL.keras, compare the two files, without
    TensorFlow. The exit status is 0 if they agree and 1 if they differ.
    """
    del debug
    limits, sizes = _ranges(ranges or []), input_shapes(shapes or [], samples)
    keras_file = None if is_onnx(model) else open_keras_file(model, unsafe=unsafe)
    require_file(onnx, "MODEL.onnx")
    if is_onnx(model):
        require_file(model, "MODEL.onnx")
        swapped = f"Give the Keras model first: keras-bn check {onnx} {model}"
        require_no_keras_file(onnx, "The second file", swapped)
    else:
        require_no_keras_file(onnx, "MODEL.onnx")
    for option, value in (("--seed", seed), ("--range", ranges or None)):
        if samples is not None and value is not None:
            raise ExportError(
                f"{option} must be left out where samples are given: nothing is drawn then. "
                f"Received: {option} and --input {samples}."
            )
    from ..runtime.providers import require_providers

    providers = providers or [CPU]
    require_providers(providers)
    if keras_file is None:
        keras_only = {
            "--preprocess": preprocess,
            "--precision": precision != "keep",
            "--html": html,
            "--unsafe": unsafe,
        }
        report = check_two_files(
            model,
            onnx,
            samples=samples,
            limits=limits,
            shapes=sizes,
            seed=seed or 0,
            providers=providers,
            keras_only=keras_only,
            shown=not (as_json or quiet),
        )
        _answer(report, as_json=as_json, quiet=quiet)
        return
    if sizes:
        raise ExportError(
            "--input-shape must be left out where MODEL.keras says what is drawn. "
            f"Received: {' '.join(shapes or [])}."
        )
    names = keras_file.input_names, keras_file.output_names
    given = samples_from(samples, preprocess, *names)
    from ..foreign.opening import open_model
    from ..parity.surface import Surface

    surface = Surface.of(open_model(onnx, where="check"))  # before TensorFlow, which takes seconds
    with (
        progress(shown=not (as_json or quiet)) as step,
        parity_page(
            html, (model, "MODEL.keras"), (onnx, "MODEL.onnx"), *named_samples(samples)
        ) as page,
    ):
        loaded, arrays, notes = load_with_samples(keras_file, given, step)
        from ..parity.check import check_samples
        from ..parity.samples.samples import Sampling
        from ..signature import signature_of

        step(f"comparing {onnx} with {model}")
        sampling = Sampling(
            loaded,
            inputs=arrays,
            seed=seed or 0,
            ranges=named_ranges(limits, lambda: [s.name for s in signature_of(loaded).specs]),
            precision=precision,
        )
        report = check_samples(
            sampling, onnx, page.stages, providers=providers, explain=explain, surface=surface
        )
        report = dataclasses.replace(report, notes=(*notes, *report.notes))
        command = command_of(context)
        page.write(report, loaded, step, source=model, file=onnx, command=command)
    _answer(report, as_json=as_json, quiet=quiet)


def _answer(report: "ParityReport", *, as_json: bool, quiet: bool) -> None:
    """Print a report; exit with the status of files that differ if they do."""
    from .print_parity import print_parity

    answer(
        report.to_dict,
        lambda console: print_parity(report, console),
        as_json=as_json,
        quiet=quiet,
    )
    if not report.passed:
        raise typer.Exit(DIFFERS)


def _ranges(words: list[str]) -> dict[str, tuple[float, float]]:
    """Return the numbers of each NAME=LOW:HIGH, under the name "" where that is left out."""
    found: dict[str, tuple[float, float]] = {}
    for word in words:
        name, _, limits = word.rpartition("=")
        try:
            low, high = map(float, limits.split(":"))
        except ValueError as e:
            raise ExportError(
                "--range must be NAME=LOW:HIGH, or LOW:HIGH for a model with one input. "
                f"Received: {word!r}."
            ) from e
        if name in found:
            raise ExportError(f"--range must be given once for each input. Received: {words!r}.")
        found[name] = low, high
    return found
