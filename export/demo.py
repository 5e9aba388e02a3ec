"""`keras-bn demo`: real digits, a trained network, a folded file, and the proof, in one table."""

import time
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from keras_bn.models import digits_cnn

from .errors import ExportError
from .pipeline import export_onnx
from .report import ExportReport
from .save import replacing

__all__ = ["run_demo"]

SEED = 0
EPOCHS = 15
BATCH_SIZE = 32
LEARNING_RATE = 3e-3  # at the start; falls to 0 along a cosine
ACCURACY_TO_REACH = 0.97


def run_demo(folder: Path) -> bool:
    """Train, export and prove the digits network; print a table.

    Args:
        folder: Gets `digits_cnn.keras`, `digits_cnn.onnx` and the held-out images,
            `digits_test.npz`; created if missing.

    Returns:
        Whether the accuracy was reached, no affine operator is left, and ONNX Runtime agrees.

    Raises:
        ExportError: If the folder cannot be written.
        ParityError: If ONNX Runtime computes something else than Keras.
    """
    console = Console()
    seconds: dict[str, float] = {}
    train_images, test_images, train_digits, test_digits = _load_digits()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ExportError(
            f"demo: --out must be a folder or a new name. Received: {str(folder)!r}: {e.strerror}. "
            "Choose another one."
        ) from e
    with replacing(folder / "digits_test.npz") as temporary:
        np.savez(temporary, image=test_images, digit=test_digits)
    start = time.perf_counter()
    model = _train(train_images, train_digits, console)
    seconds["train"] = time.perf_counter() - start
    with replacing(folder / "digits_cnn.keras") as temporary:
        model.save(temporary)
    report = export_onnx(model, folder / "digits_cnn.onnx", inputs=test_images)
    seconds |= report.seconds
    keras_accuracy = _accuracy(model.predict(test_images, verbose=0), test_digits)
    session = onnxruntime.InferenceSession(folder / "digits_cnn.onnx")
    onnx_accuracy = _accuracy(session.run(None, {"image": test_images})[0], test_digits)
    left = _count_batch_norms(folder / "digits_cnn.onnx") + len(report.fold.refusals)
    console.print(_table(model, report, folder, keras_accuracy, onnx_accuracy, seconds))
    if report.fold.refusals:
        console.print(str(report.fold), markup=False)
    reached = min(keras_accuracy, onnx_accuracy) >= ACCURACY_TO_REACH
    if not reached:
        console.print(f"The accuracy should have reached {ACCURACY_TO_REACH}.")
    return reached and left == 0


def _load_digits() -> tuple[np.ndarray, ...]:
    try:
        loaded: tuple[np.ndarray, ...] = digits_cnn.load_data(SEED)
    except ModuleNotFoundError as e:
        raise ExportError(
            "demo: the images come with scikit-learn, which must be installed. "
            f"Received: no package {e.name!r}. Install the extra: pip install 'keras-bn[demo]'."
        ) from e
    return loaded


def _train(images: np.ndarray, digits: np.ndarray, console: Console) -> keras.Model:
    model = digits_cnn.build(SEED)
    steps = EPOCHS * -(-len(images) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    columns = (
        TextColumn(f"training on {len(images)} images"),
        BarColumn(),
        TextColumn("epoch {task.completed}/{task.total}, accuracy {task.fields[accuracy]:.4f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=EPOCHS, accuracy=0.0)

        def show(epoch: int, logs: dict[str, float]) -> None:
            progress.update(task, completed=epoch + 1, accuracy=logs["accuracy"])

        model.fit(
            images,
            digits,
            batch_size=BATCH_SIZE,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=show)],
        )
    return model


def _accuracy(probabilities: np.ndarray, digits: np.ndarray) -> float:
    return float(np.mean(probabilities.argmax(-1) == digits))


def _count_batch_norms(path: Path) -> int:
    return sum(node.op_type == "BatchNormalization" for node in onnx.load(path).graph.node)


def _table(
    model: keras.Model,
    report: ExportReport,
    folder: Path,
    keras_accuracy: float,
    onnx_accuracy: float,
    seconds: dict[str, float],
) -> Table:
    layers = sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    table = Table(title=f"{model.name}, {model.count_params():,} parameters")
    for column in ("", "Keras", "ONNX Runtime"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("accuracy on held-out images", f"{keras_accuracy:.4f}", f"{onnx_accuracy:.4f}")
    left = _count_batch_norms(folder / "digits_cnn.onnx")
    table.add_row("batch norms", str(layers), str(left))
    table.add_row("other affine operators left", "", str(len(report.fold.refusals) - left))
    if report.parity is not None:
        output = report.parity.outputs[0]
        table.add_row(
            f"largest error against {report.parity.reference}",
            f"{output.keras_max_error:.1e}",
            f"{max(output.onnx_max_error, output.optimised_max_error):.1e}"
            f" (allowed {output.tolerance:.1e})",
        )
    sizes = [(folder / f"digits_cnn.{suffix}").stat().st_size for suffix in ("keras", "onnx")]
    table.add_row("file, bytes", *(f"{size:,}" for size in sizes))
    table.add_section()
    for stage, duration in seconds.items():
        figure = f"{duration:.3f}"
        table.add_row(f"{stage}, seconds", *([figure] if stage == "train" else ["", figure]))
    return table
