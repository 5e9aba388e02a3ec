"""One model on the same batches: in Keras, in Keras in float64, and in ONNX Runtime.

Each of the three is a function from the arrays of a batch, in the model's order, to the arrays of
its outputs, in the model's order. Inputs and outputs that a file keeps with the channels second are
transposed on the way; the file's metadata names them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime

from .errors import ExportError, one_line
from .samples import Samples
from .signature import Signature, output_names

__all__ = ["CHANNELS_SECOND", "Run", "float64_copy", "in_keras", "in_onnxruntime", "run_batches"]

# Keys of the metadata that name the inputs and the outputs whose channels are second, as JSON.
CHANNELS_SECOND = ("keras_bn.inputs_as_nchw", "keras_bn.outputs_as_nchw")

Run = Callable[[Samples], Samples]


def in_keras(model: keras.Model, signature: Signature) -> tuple[Run, list[str]]:
    """Return a function that runs a model in inference and leaves its state alone.

    Args:
        model: The model.
        signature: What it is called with.

    Returns:
        The function, and a list that holds the names of the outputs once it has run.
    """
    names: list[str] = []

    def run(batch: Samples) -> Samples:
        tensors = [keras.ops.convert_to_tensor(array) for array in batch]
        with keras.StatelessScope():
            outputs = model(*signature.pack(tensors), training=False)
        names[:] = output_names(model, [spec.name for spec in signature.specs], outputs)
        return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]

    return run, names


def in_onnxruntime(path: Path, level: Any, inputs: list[str], outputs: list[str]) -> Run:
    """Open a file in ONNX Runtime, on the CPU in one thread.

    Args:
        path: The file.
        level: ONNX Runtime's level of graph optimisation.
        inputs: Names of the inputs, in the model's order.
        outputs: Likewise of the outputs.

    Raises:
        ExportError: If the file cannot be loaded, or has other inputs or outputs.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1  # the same sums in the same order, run after run
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # ONNX Runtime's exceptions have no common base but Exception
        raise ExportError(
            "check: MODEL.onnx must be a file that ONNX Runtime loads. "
            f"Received: {str(path)!r}: {one_line(e)}"
        ) from e
    for what, wanted, found in (
        ("inputs", inputs, [value.name for value in session.get_inputs()]),
        ("outputs", outputs, [value.name for value in session.get_outputs()]),
    ):
        if sorted(found) != sorted(wanted):
            raise ExportError(
                f"check: the {what} of MODEL.onnx must be those of the Keras model, {wanted}. "
                f"Received: {found}. Is it an export of another model?"
            )
    metadata = session.get_modelmeta().custom_metadata_map
    inputs_second, outputs_second = (_names(metadata, key) for key in CHANNELS_SECOND)

    def run(batch: Samples) -> Samples:
        moved = [
            np.ascontiguousarray(np.moveaxis(array, -1, 1)) if name in inputs_second else array
            for name, array in zip(inputs, batch, strict=True)
        ]
        try:
            results = session.run(outputs, dict(zip(inputs, moved, strict=True)))
        except Exception as e:
            raise ExportError(
                "check: MODEL.onnx must accept the inputs of the Keras model. "
                f"Received: {one_line(e)}"
            ) from e
        return [
            np.moveaxis(result, 1, -1) if name in outputs_second else result
            for name, result in zip(outputs, results, strict=True)
        ]

    return run


def _names(metadata: dict[str, str], key: str) -> list[str]:
    try:
        names = json.loads(metadata.get(key, "[]"))
    except ValueError:
        names = []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def float64_copy(model: keras.Model) -> keras.Model:
    """Rebuild a functional or sequential model with every layer in float64, same weights.

    Raises:
        TypeError: If a variable stays in its own precision. Building runs the code of every layer,
            which may raise anything.
    """

    def in_float64(layer: Any) -> Any:
        copy = layer.__class__.from_config(_in_float64(layer.get_config()))
        if isinstance(copy, keras.Layer):
            for part in copy._flatten_layers():  # made by a constructor, so in no config
                part.dtype_policy = keras.DTypePolicy("float64")
        return copy

    copy = keras.models.clone_model(model, clone_function=in_float64, recursive=True)
    copy.set_weights(model.get_weights())
    for layer in copy._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()  # it keeps its statistics outside the weights, too
    narrow = [v.path for v in copy.variables if v.dtype in ("float16", "bfloat16", "float32")]
    if narrow:
        raise TypeError(f"{narrow[0]} stays in its own precision")
    return copy


def _in_float64(config: Any) -> Any:
    """Replace the dtype in a config and in the configs inside it, such as a wrapped layer's."""
    if isinstance(config, list | tuple):
        return type(config)(_in_float64(part) for part in config)
    if not isinstance(config, dict):
        return config
    return {
        key: "float64" if key == "dtype" and value is not None else _in_float64(value)
        for key, value in config.items()
    }


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
