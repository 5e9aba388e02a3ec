"""An ONNX file in ONNX Runtime: a function from the arrays of a batch to those of its outputs.

Both in the order of the names that are asked for. Inputs and outputs that a file keeps with the
channels second are transposed on the way; the file's metadata names them.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from ..defaults import CPU
from ..errors import ExportError, one_line
from ..files.metadata import channels_second
from .arena import give_memory_back, share_bounded_arena

__all__ = [
    "LEVELS",
    "OnnxRuntime",
    "Run",
    "Samples",
    "by_position",
    "open_session",
    "require_as_many",
    "run_batches",
    "with_outputs",
]

LEVELS = (
    onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
)

KERAS_MODEL = "the Keras model"  # what a file is compared with, unless it is another file
Samples = list[np.ndarray]  # one array for each input or output

Run = Callable[[Samples], Samples]


def open_session(
    source: Path | bytes,
    level: Any,
    provider: str = CPU,
    *,
    folder: Path | None = None,
    threads: int = 1,
) -> onnxruntime.InferenceSession:
    """Load a file or its content, in the bounded arena; arguments as for `OnnxRuntime`.

    Raises:
        Exception: If it cannot be loaded; ONNX Runtime's have no common class of their own.
    """
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
    return onnxruntime.InferenceSession(source, options, providers=providers)


class OnnxRuntime:
    """A file, opened in ONNX Runtime; in one thread, so that sums are the same run after run.

    Args:
        source: The file, or its content.
        level: ONNX Runtime's level of graph optimisation.
        provider: The execution provider; what it cannot do, the CPU does.
        folder: Where the weights of a content are that it keeps in other files.
        threads: How many to run in; more than one is faster, and no longer the same every time.
        name: What errors call it.
        like: What errors say that it must be like.

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
        name: str = "MODEL.onnx",
        like: str = KERAS_MODEL,
    ) -> None:
        self._name, self._like = name, like
        try:
            self._session = open_session(source, level, provider, folder=folder, threads=threads)
        except Exception as e:  # ONNX Runtime's exceptions have no common base but Exception
            received = "a graph" if isinstance(source, bytes) else repr(str(source))
            advice = ""
            if "NOT_IMPLEMENTED" in str(e):  # such as a Conv in float64
                advice = ". It lacks that operator in that dtype"
                if like == KERAS_MODEL:
                    advice += ": build the model in float32, or export it with "
                    advice += "`precision='float32'`"
            raise ExportError(
                f"check: {name} must be a file that ONNX Runtime loads. "
                f"Received: {received}: {one_line(e)}{advice}"
            ) from e
        self.inputs = [str(value.name) for value in self._session.get_inputs()]
        self.outputs = [str(value.name) for value in self._session.get_outputs()]
        self._narrow = {v.name for v in self._session.get_inputs() if v.type == "tensor(float)"}
        metadata = self._session.get_modelmeta().custom_metadata_map
        self._inputs_second, self._outputs_second = channels_second(metadata)

    def require_interface(self, inputs: list[str], outputs: list[str]) -> None:
        """Raise `ExportError` unless the file has as many inputs and outputs, of any name."""
        require_as_many("inputs", inputs, self.inputs, self._name, self._like)
        require_as_many("outputs", outputs, self.outputs, self._name, self._like)

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
            feed = {
                # A float64 model that was exported in float32 has inputs of that.
                name: array.astype(np.float32)
                if name in self._narrow and array.dtype == np.float64
                else array
                for name, array in zip(inputs, moved, strict=True)
            }
            try:
                results = self._session.run(outputs, feed, give_memory_back())
            except Exception as e:
                raise ExportError(
                    f"check: {self._name} must accept the inputs of {self._like}. "
                    f"Received: {one_line(e)}"
                ) from e
            for name, result in zip(outputs, results, strict=True):
                if not isinstance(result, np.ndarray) or result.dtype.kind not in "fiub":
                    advice = " Is it an export of another model?"
                    raise ExportError(
                        f"check: the outputs of {self._name} must be tensors of numbers. "
                        f"Received: {name!r}, of {type(result).__name__} with "
                        f"{getattr(result, 'dtype', 'no dtype')}."
                        f"{advice if self._like == KERAS_MODEL else ''}"
                    )
            return [
                np.moveaxis(result, 1, -1) if name in self._outputs_second else result
                for name, result in zip(outputs, results, strict=True)
            ]

        return run


def require_as_many(
    what: str,
    wanted: list[str],
    found: list[str],
    name: str = "MODEL.onnx",
    like: str = KERAS_MODEL,
) -> None:
    """Raise `ExportError` unless a file has as many inputs, or outputs, as another."""
    if len(found) != len(wanted):
        raise ExportError(
            f"check: the {what} of {name} must be those of {like}, {wanted}. "
            f"Received: {found}. Is it an export of another model?"
        )


def by_position(names: list[str], found: list[str]) -> list[str]:
    """Return what a file calls the inputs or outputs of a model.

    Other exporters have names of their own: Keras calls outputs `output_0` or `Identity:0`. Where
    one is missing, all stand for each other in order: numbered names, as Keras gives to what has
    none, may return one further on, for another tensor.

    Args:
        names: Names in the model.
        found: Names in the file, no fewer.

    >>> by_position(["image", "mask"], ["mask", "image"])
    ['image', 'mask']
    >>> by_position(["dense_1", "dense_2"], ["dense", "dense_1"])
    ['dense', 'dense_1']
    """
    return names if set(names) <= set(found) else found[: len(names)]


def with_outputs(proto: onnx.ModelProto, names: Iterable[str]) -> bytes:
    """Return a model as bytes in which some tensors are outputs, too; it stays as it was."""
    outputs = proto.graph.output
    own, there = len(outputs), {value.name for value in outputs}
    outputs.extend(onnx.ValueInfoProto(name=name) for name in names if name not in there)
    try:
        return bytes(proto.SerializeToString())
    finally:
        del outputs[own:]


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
