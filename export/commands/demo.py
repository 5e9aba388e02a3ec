"""`keras-bn demo`: train on real digits, export, and prove it."""

from pathlib import Path
from typing import Annotated

import typer

from .console import DIFFERS, answer, progress, quiet_tensorflow
from .options import DebugOption, JsonOption, QuietOption, examples

__all__ = ["EXAMPLES", "demo"]

EXAMPLES = examples("keras-bn demo", "keras-bn demo --out /tmp/demo")


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Where the files go; created if missing.")
    ] = Path("keras-bn-demo"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Train on real handwritten digits, export with every batch norm folded, and prove it."""
    del debug
    with progress(shown=not (as_json or quiet)) as step:
        step("starting TensorFlow")
        with quiet_tensorflow():
            from keras_bn.models import digits_cnn

            from ..pipeline import export_onnx
            from .digits import demo_of, print_demo, train
        trained = train(digits_cnn.build, digits_cnn.load_data, out, step)
        step("exporting, and proving the export")
        report = export_onnx(trained.model, out / "digits_cnn.onnx", inputs=trained.images)
        found = demo_of(trained, report)
    answer(found.to_dict, lambda console: print_demo(found, console), as_json=as_json, quiet=quiet)
    if not found.passed:
        raise typer.Exit(DIFFERS)
