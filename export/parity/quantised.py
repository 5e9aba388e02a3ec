"""Files that compute in 8 bits: what they hold, and where optimised and plain results part."""

import dataclasses
from collections import Counter

import numpy as np
import onnx

from keras_bn.reporting import counted

from ..graph.families import is_quantised
from ..runtime.session import LEVELS, OnnxRuntime, with_outputs
from .report import ENOUGH_SAMPLES, SAME_CLASS, Fault, OutputParity, ParityReport
from .rule import SIGNAL_TO_NOISE

__all__ = ["UNCALIBRATED", "as_read", "notes_of_bits", "quantised_operators", "with_parts"]

UNCALIBRATED = ("constant", "out of range")  # kinds of draws that no file in 8 bits is made for
PARTED = 4.0  # times the error without optimisations that theirs must be, to be looked into
NAMED = 3  # layers or tensors that a note names
ROUNDING = float(np.finfo(np.float32).eps)  # of the scale: a smaller error counts as this
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


def as_read(proto: onnx.ModelProto) -> dict[str, str]:
    """Return, for each tensor that a file turns into 8 bits, the one that its readers see instead.

    What was in a Relu may be in those 8 bits, which have nothing below 0.
    """
    back = {n.input[0]: n.output[0] for n in proto.graph.node if n.op_type == "DequantizeLinear"}
    quantised = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    return {n.input[0]: back[n.output[0]] for n in quantised if n.output[0] in back}


def with_parts(report: ParityReport, parts: dict[str, float], what: str) -> ParityReport:
    """Let a report on a file in 8 bits tell the signal to noise of its parts.

    Args:
        report: The report.
        parts: In dB, by name, in order.
        what: What they are: "layer" or "tensor".

    Returns:
        The report with a note on the least, and if it failed with the first as its fault that has
        less than outputs must.
    """
    if not parts:
        return report
    least = sorted(parts, key=lambda name: parts[name])[:NAMED]
    told = ", ".join(f"{name!r} {parts[name]:.1f} dB" for name in least)
    note = f"of {counted(len(parts), what)}, the least signal to noise has {told}"
    fault = None
    first = next((name for name, signal in parts.items() if signal < SIGNAL_TO_NOISE), None)
    if first is not None and not report.passed:
        layers, value = ((first,), None) if what == "layer" else ((), first)
        below = f"with a signal to noise below {SIGNAL_TO_NOISE:g} dB"
        detail = f"The first {what} {below} is {first!r}: {parts[first]:.1f} dB."
        fault = Fault("file", layers, value, detail)
    notes = (*report.notes, note)
    return dataclasses.replace(report, signal_to_noise=parts, fault=fault, notes=notes)


def _parting(
    rows: list[OutputParity], proto: onnx.ModelProto, inputs: list[str], batch: list[np.ndarray]
) -> str | None:
    worse = [row for row in rows if _times(row) > PARTED]
    if not worse:
        return None
    row = max(worse, key=_times)
    told = (
        f"output {row.name!r} is {_times(row):.0f} times as far from the "
        "truth with ONNX Runtime's optimisations as without. On a CPU without VNNI, products of 8 "
        "bits saturate: quantise with reduce_range=True or unsigned weights, or run with "
        "session.x64quantprecision=1"
    )
    found = _first_parting(proto, inputs, batch)
    return told if found is None else f"{told}. The first tensor where the two part is {found!r}"


def _times(row: OutputParity) -> float:
    """Return how many times as far as without optimisations an output is off with them."""
    return row.optimised.rms / max(row.onnx.rms, ROUNDING)


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
