"""`keras-bn demo`: real digits, a trained network, a folded file, and the proof, in one table."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import onnx

from keras_bn.reporting import jsonable

from ..errors import ExportError
from ..files.whole_file import replacing
from ..report import ExportReport
from ..runtime.session import LEVELS, OnnxRuntime

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Demo", "Trained", "demo_of", "print_demo", "train"]

SEED = 0
EPOCHS = 15
BATCH_SIZE = 32
LEARNING_RATE = 3e-3  # at the start; falls to 0 along a cosine
ACCURACY_TO_REACH = 0.97


@dataclasses.dataclass(frozen=True)
class Demo:
    """What the demo came to.

    Attributes:
        model: Name of the network.
        parameters: Number of its weights.
        batch_norms: Number of its batch-norm layers.
        batch_norms_left: Number of those in the ONNX file.
        keras_accuracy: Share of the held-out images that Keras classifies rightly.
        onnx_accuracy: Likewise ONNX Runtime.
        keras_bytes: Size of the Keras file.
        seconds: Seconds that training took.
        export: The report of the export, with the proof.
    """

    model: str
    parameters: int
    batch_norms: int
    batch_norms_left: int
    keras_accuracy: float
    onnx_accuracy: float
    keras_bytes: int
    seconds: float
    export: ExportReport

    @property
    def reached(self) -> bool:
        """Whether both accuracies are what they should be."""
        return min(self.keras_accuracy, self.onnx_accuracy) >= ACCURACY_TO_REACH

    @property
    def passed(self) -> bool:
        """Whether they are, and no affine operator is left; a file that differs raises instead."""
        return self.reached and not self.batch_norms_left and not self.export.fold.refusals

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-compatible data."""
        data: dict[str, Any] = jsonable({"passed": self.passed, **vars(self)})
        return data


@dataclasses.dataclass(frozen=True)
class Trained:
    """The trained network, in memory and on disk.

    Attributes:
        model: The network.
        path: Its Keras file.
        images: The held-out images.
        digits: What they show.
        seconds: Seconds that training took.
    """

    model: keras.Model
    path: Path
    images: np.ndarray
    digits: np.ndarray
    seconds: float


def train(
    build: Callable[[int], keras.Model],
    load_data: Callable[[int], tuple[np.ndarray, ...]],
    folder: Path,
    step: Callable[[str], None],
) -> Trained:
    """Train the digits network.

    Args:
        build: Returns the network of a seed.
        load_data: Returns the images to train on and those to hold out, and what each shows.
        folder: Gets `digits_cnn.keras` and the held-out images, `digits_test.npz`; created if
            missing.
        step: Takes what is being done, in words.

    Raises:
        ExportError: If the folder cannot be written.
    """
    train_images, test_images, train_digits, test_digits = _loaded(load_data)
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
    model = build(SEED)
    _train(model, train_images, train_digits, step)
    seconds = time.perf_counter() - start
    path = folder / "digits_cnn.keras"
    with replacing(path) as temporary:
        model.save(temporary)
    return Trained(model, path, test_images, test_digits, seconds)


def demo_of(trained: Trained, report: ExportReport) -> Demo:
    """Return what the network and its export came to on the held-out images."""
    model, session = trained.model, OnnxRuntime(Path(report.path), LEVELS[-1])
    return Demo(
        model.name,
        model.count_params(),
        sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers),
        sum(node.op_type == "BatchNormalization" for node in onnx.load(report.path).graph.node),
        _accuracy(model.predict(trained.images, verbose=0), trained.digits),
        _accuracy(session.runner(["image"], session.outputs)([trained.images])[0], trained.digits),
        trained.path.stat().st_size,
        trained.seconds,
        report,
    )


def _loaded(load_data: Callable[[int], tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    try:
        return load_data(SEED)
    except ModuleNotFoundError as e:
        raise ExportError(
            "demo: the images come with scikit-learn, which must be installed. "
            f"Received: no package {e.name!r}. Install the extra: pip install 'keras-bn[demo]'."
        ) from e


def _train(
    model: keras.Model, images: np.ndarray, digits: np.ndarray, step: Callable[[str], None]
) -> None:
    steps = EPOCHS * -(-len(images) // BATCH_SIZE)
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    model.compile(
        keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )

    def show(epoch: int, logs: dict[str, float]) -> None:
        accuracy = f"accuracy {logs['accuracy']:.4f}"
        step(f"training on {len(images)} images: epoch {epoch + 1}/{EPOCHS}, {accuracy}")

    step(f"training on {len(images)} images")
    model.fit(
        images,
        digits,
        batch_size=BATCH_SIZE,
        epochs=EPOCHS,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=show)],
    )


def _accuracy(probabilities: np.ndarray, digits: np.ndarray) -> float:
    return float(np.mean(probabilities.argmax(-1) == digits))


def print_demo(demo: Demo, console: "Console") -> None:
    """Print what the demo came to as a table.

    Args:
        demo: What it came to.
        console: Where to.
    """
    from rich.table import Table

    from .console import print_text

    report = demo.export
    table = Table(title=f"{demo.model}, {demo.parameters:,} parameters")
    for column in ("", "Keras", "ONNX Runtime"):
        table.add_column(column, justify="left" if not column else "right")
    accuracies = (f"{demo.keras_accuracy:.4f}", f"{demo.onnx_accuracy:.4f}")
    table.add_row("accuracy on held-out images", *accuracies)
    table.add_row("batch norms", str(demo.batch_norms), str(demo.batch_norms_left))
    others = len(report.fold.refusals) - demo.batch_norms_left
    table.add_row("other affine operators left", "", str(others))
    if report.parity is not None:
        output = report.parity.outputs[0]
        table.add_row(
            f"largest error against {output.reference}",
            f"{output.keras.max:.1e}",
            f"{output.worst.max:.1e} (allowed {output.tolerance:.1e})",
        )
    table.add_row("file, bytes", f"{demo.keras_bytes:,}", f"{report.bytes:,}")
    table.add_section()
    table.add_row("train, seconds", f"{demo.seconds:.3f}")
    for stage, duration in report.seconds.items():
        table.add_row(f"{stage}, seconds", "", f"{duration:.3f}")
    console.print(table)
    if report.fold.refusals:
        print_text(str(report.fold), console)
    if not demo.reached:
        console.print(f"The accuracy should have reached {ACCURACY_TO_REACH}.")
