"""What an ONNX file says of itself, in its metadata: the keys, and how what they hold is read."""

import json
from collections.abc import Mapping

__all__ = ["CHANNELS_SECOND", "channels_second"]

# Keys of the metadata that name the inputs and the outputs whose channels are second, as JSON.
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
