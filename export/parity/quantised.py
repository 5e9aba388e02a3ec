"""Files that compute in 8 bits: what they hold, and where optimised and plain results part."""

from collections import Counter

import numpy as np
import onnx

from ..foreign.whole import is_quantised
from ..runtime.session import LEVELS, OnnxRuntime, with_outputs
from .report import ENOUGH_SAMPLES, SAME_CLASS, OutputParity
from .rule import SIGNAL_TO_NOISE

__all__ = ["UNCALIBRATED", "notes_of_bits", "quantised_operators"]

UNCALIBRATED = ("constant", "out of range")  # kinds of draws that no file in 8 bits is made for
PARTED = 4.0  # times the error without optimisations that theirs must be, to be looked into
STEP = 0.5  # of a step of 8 bits, root mean square, by which tensors part


def quantised_operators(proto: onnx.ModelProto) -> str:
    """Return the operators of a file that compute in 8 bits, in words; "" if there are none."""
    counts = Counter(node.op_type for node in proto.graph.node if is_quantised(node.op_type))
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def notes_of_bits(
    bits: str,
    rows: list[OutputParity],
    proto: onnx.ModelProto,
    inputs: list[str],
    batch: list[np.ndarray],
) -> list[str]:
    """Say that a file computes in 8 bits, how it is judged, and where optimisations change it.

    Args:
        bits: What `quantised_operators` found.
        rows: How its outputs compare.
        proto: The file, with its weights in it; as it was, afterwards.
        inputs: Names of its inputs.
        batch: What it runs on.
    """
    judged = (
        f"the file computes in 8 bits ({bits}): judged by a signal to noise of at least "
        f"{SIGNAL_TO_NOISE:g} dB, and {SAME_CLASS:.0%} of the samples in the same class where "
        f"there are {ENOUGH_SAMPLES} or more, on inputs like those that it was calibrated on"
    )
    parting = _parting(rows, proto, inputs, batch)
    return [judged] if parting is None else [judged, parting]


def _parting(
    rows: list[OutputParity], proto: onnx.ModelProto, inputs: list[str], batch: list[np.ndarray]
) -> str | None:
    worse = [row for row in rows if row.optimised.rms > PARTED * row.onnx.rms]
    if not worse:
        return None
    row = max(worse, key=lambda row: row.optimised.rms / row.onnx.rms)
    told = (
        f"output {row.name!r} is {row.optimised.rms / row.onnx.rms:.0f} times as far from the "
        "truth with ONNX Runtime's optimisations as without. On a CPU without VNNI, products of 8 "
        "bits saturate: quantise with reduce_range=True or unsigned weights, or run with "
        "session.x64quantprecision=1"
    )
    found = _first_parting(proto, inputs, batch)
    return told if found is None else f"{told}. The first tensor where the two part is {found!r}"


def _first_parting(
    proto: onnx.ModelProto, inputs: list[str], batch: list[np.ndarray]
) -> str | None:
    """Return the first tensor of 8 bits that optimisations change by more than rounding."""
    names = [
        name
        for node in proto.graph.node
        if node.op_type == "QuantizeLinear"
        for name in node.output
    ]
    content = with_outputs(proto, names)
    plain, optimised = (
        OnnxRuntime(content, level).runner(inputs, names)(batch) for level in LEVELS
    )
    for name, one, other in zip(names, plain, optimised, strict=True):
        steps = one.astype(np.float64) - other
        if np.sqrt(np.mean(steps**2)) > STEP:
            return str(name)
    return None
