"""Signal to noise of every tensor in a file of 8 bits that bears a name of another file, in dB."""

import numpy as np

from ..measure import signal_to_noise
from .float64 import Arrays, Float64Graph
from .side import Side

__all__ = ["tensors_in_decibels"]


def tensors_in_decibels(
    truth: Float64Graph, second: Side, inputs: Arrays, others: Arrays, read: dict[str, str]
) -> dict[str, float]:
    """Measure the tensors, as their readers see them: behind the 8 bits.

    Args:
        truth: The other file, in float64.
        second: The file in 8 bits.
        inputs: What the other file runs on, by name.
        others: Likewise this one.
        read: What the readers of a tensor see instead of it, by name.

    Returns:
        By name, in the file's order.
    """
    made = {name for node in truth.nodes for name in node.output if name}
    nodes = second.proto.graph.node
    shared = [name for node in nodes for name in node.output if name in made]
    wide = truth.run(inputs, set(shared))
    called = {name: read.get(name, name) for name in shared if wide[name].dtype == np.float64}
    found = second.values(list(called.values()), others)
    return {name: signal_to_noise(wide[name], found[seen]) for name, seen in called.items()}
