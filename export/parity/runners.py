"""One model on the same batches: in Keras, in Keras in float64, and in ONNX Runtime.

Each of the three is a function from the arrays of a batch, in the model's order, to the arrays of
its outputs, in the model's order. Inputs and outputs that a file keeps with the channels second are
transposed on the way; the file's metadata names them.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime

from keras_bn.observe import eager_functions

from ..errors import ExportError, one_line
from ..signature import Signature, output_names
from .arena import give_memory_back, share_bounded_arena
from .providers import CPU
from .refused import StoodIn, standing_in
from .surface import by_position
from .truth import Float64Weights, computing_in_float64

__all__ = [
    "CHANNELS_SECOND",
    "LEVELS",
    "OnnxRuntime",
    "Run",
    "Samples",
    "channels_second",
    "in_keras",
    "run_batches",
]

# Keys of the metadata that name the inputs and the outputs whose channels are second, as JSON.
CHANNELS_SECOND = ("keras_bn.inputs_as_nchw", "keras_bn.outputs_as_nchw")
LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)

Samples = list[np.ndarray]  # one array for each input or output
Run = Callable[[Samples], Samples]


def in_keras(
    model: keras.Model,
    signature: Signature,
    weights: Float64Weights | None = None,
    within: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    stood_in: StoodIn | None = None,
) -> tuple[Run, list[str]]:
    """Return a function that runs a model in inference and leaves its state alone.

    Args:
        model: The model.
        signature: What it is called with.
        weights: Its weights in float64, to run it in float64; None runs it as it is.
        within: Makes a context for each run.
        stood_in: Takes which of its operators TensorFlow refuses on this CPU.

    Returns:
        The function, and a list that holds the names of the outputs once it has run.
    """
    names: list[str] = []

    def run(batch: Samples) -> Samples:
        tensors = [keras.ops.convert_to_tensor(array) for array in batch]
        wide = contextlib.nullcontext() if weights is None else computing_in_float64(model)
        scope = keras.StatelessScope() if weights is None else weights.scope()
        # The trace of a function that was built by its own first call keeps the weights of then.
        standing = standing_in(model, stood_in or StoodIn())
        with eager_functions(), _whole_tracebacks(), wide, scope, standing, within():
            outputs = model(*signature.pack(tensors), training=False)
        names[:] = output_names(model, [spec.name for spec in signature.specs], outputs)
        return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]

    return run, names


@contextlib.contextmanager
def _whole_tracebacks() -> Iterator[None]:
    """Let errors keep the frames of Keras, which say whose they are, and their own words."""
    filtered = keras.config.is_traceback_filtering_enabled()
    keras.config.disable_traceback_filtering()
    try:
        yield
    finally:
        if filtered:
            keras.config.enable_traceback_filtering()


class OnnxRuntime:
    """A file, opened in ONNX Runtime; in one thread, so that sums are the same run after run.

    Args:
        source: The file, or its content.
        level: ONNX Runtime's level of graph optimisation.
        provider: The execution provider; what it cannot do, the CPU does.
        folder: Where the weights of a content are that it keeps in other files.
        threads: How many to run in; more than one is faster, and no longer the same every time.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs.

    Raises:
        ExportError: If it cannot be loaded.
    """

    def __init__(
        self,
        source: Path | bytes,
        level: Any,
        provider: str = CPU,
        *,
        folder: Path | None = None,
        threads: int = 1,
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        share_bounded_arena(options)
        if folder is not None:
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(folder)
            )
        providers = list(dict.fromkeys([provider, CPU]))
        try:
            self._session = onnxruntime.InferenceSession(source, options, providers=providers)
        except Exception as e:  # ONNX Runtime's exceptions have no common base but Exception
            name = "a graph" if isinstance(source, bytes) else repr(str(source))
            advice = ""
            if "NOT_IMPLEMENTED" in str(e):  # such as a Conv in float64
                advice = ". It lacks that operator in that dtype: build the model in float32"
            raise ExportError(
                "check: MODEL.onnx must be a file that ONNX Runtime loads. "
                f"Received: {name}: {one_line(e)}{advice}"
            ) from e
        self.inputs = [str(value.name) for value in self._session.get_inputs()]
        self.outputs = [str(value.name) for value in self._session.get_outputs()]
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._inputs_second, self._outputs_second = channels_second(metadata)

    def require_interface(self, inputs: list[str], outputs: list[str]) -> None:
        """Raise `ExportError` unless the file has as many inputs and outputs, of any name."""
        for what, wanted, found in (
            ("inputs", inputs, self.inputs),
            ("outputs", outputs, self.outputs),
        ):
            if len(found) != len(wanted):
                raise ExportError(
                    f"check: the {what} of MODEL.onnx must be those of the Keras model, {wanted}. "
                    f"Received: {found}. Is it an export of another model?"
                )

    def runner(self, inputs: list[str], outputs: list[str]) -> Run:
        """Return a function that runs it.

        Args:
            inputs: Names of the inputs, in the order of the arrays to come; see `by_position`.
            outputs: Names of what is wanted, likewise.
        """
        inputs, outputs = by_position(inputs, self.inputs), by_position(outputs, self.outputs)

        def run(batch: Samples) -> Samples:
            moved = [
                np.ascontiguousarray(np.moveaxis(array, -1, 1))
                if name in self._inputs_second
                else array
                for name, array in zip(inputs, batch, strict=True)
            ]
            try:
                feed = dict(zip(inputs, moved, strict=True))
                results = self._session.run(outputs, feed, give_memory_back())
            except Exception as e:
                raise ExportError(
                    "check: MODEL.onnx must accept the inputs of the Keras model. "
                    f"Received: {one_line(e)}"
                ) from e
            for name, result in zip(outputs, results, strict=True):
                if not isinstance(result, np.ndarray) or result.dtype.kind not in "fiub":
                    raise ExportError(
                        "check: the outputs of MODEL.onnx must be tensors of numbers. "
                        f"Received: {name!r}, of {type(result).__name__} with "
                        f"{getattr(result, 'dtype', 'no dtype')}. Is it an export of another model?"
                    )
            return [
                np.moveaxis(result, 1, -1) if name in self._outputs_second else result
                for name, result in zip(outputs, results, strict=True)
            ]

        return run


def channels_second(metadata: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the inputs and outputs whose channels are second, as a file's metadata says."""
    inputs, outputs = (_listed(metadata.get(key, "[]")) for key in CHANNELS_SECOND)
    return inputs, outputs


def _listed(text: str) -> list[str]:
    try:
        names = json.loads(text)
    except ValueError:
        names = []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def run_batches(run: Run, batches: list[Samples]) -> Samples:
    """Run every batch and join the results of each output, at least of rank 1."""
    columns = zip(*(run(batch) for batch in batches), strict=True)
    joined = []
    for column in columns:
        parts = [np.atleast_1d(part) for part in column]
        if len({part.shape[1:] for part in parts}) > 1:  # unknown dimensions that follow the batch
            parts = [part.reshape(-1) for part in parts]
        joined.append(np.concatenate(parts))
    return joined
