"""What an ONNX file says of itself, in its metadata: the keys, and how what they hold is read."""

import json
from collections.abc import Mapping

__all__ = [
    "CHANNELS_SECOND",
    "FOLDED",
    "KERAS",
    "LEFT",
    "MODEL",
    "PARITY",
    "PRECISION",
    "VERSION",
    "channels_second",
]

VERSION, KERAS = "keras_bn.version", "keras_bn.keras"  # versions that exported it
MODEL, PRECISION = "keras_bn.model", "keras_bn.precision"
FOLDED, LEFT = "keras_bn.folded", "keras_bn.left"  # how many affine operators
PARITY = "keras_bn.parity"  # the proof, as JSON
# The inputs and the outputs whose channels are second, as JSON.
CHANNELS_SECOND = ("keras_bn.inputs_as_nchw", "keras_bn.outputs_as_nchw")


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
