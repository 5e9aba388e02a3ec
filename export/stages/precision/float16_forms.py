"""What ONNX lets an operator take: which of its tensors can be float16, together.

The operators' schemas say it, at the opset of the graph: those inputs and outputs that have the
type of the first output. Inputs of a type of their own, such as the scales of a Resize, are not
data and keep theirs.
"""

import functools

import onnx
import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.operators import STANDARD

__all__ = ["float16_positions", "is_float", "is_indifferent", "is_tensor", "varying"]

INDIFFERENT = frozenset({"Cast", "Shape", "Size"})


def float16_positions(node: ir.Node, opset: int) -> tuple[list[int], list[int]] | None:
    """Return the inputs and outputs of a node that turn into float16 together.

    None if the operator has no float16 form. Inputs of a type of their own, such as the scales of a
    Resize, are not among them.
    """
    form = _form(node.op_type, opset)
    if form is None:
        return None
    inputs, outputs = form
    return (
        [i for i, v in enumerate(node.inputs) if is_float(v) and inputs[min(i, len(inputs) - 1)]],
        [
            i
            for i, v in enumerate(node.outputs)
            if is_float(v) and outputs[min(i, len(outputs) - 1)]
        ],
    )


@functools.cache
def _form(operator: str, opset: int) -> tuple[list[bool], list[bool]] | None:
    """Say which formal inputs and outputs are of the type that becomes float16."""
    try:
        schema = onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return None
    if not schema.inputs or not schema.outputs:
        return None
    together = {schema.outputs[0].type_str}
    if operator == "BatchNormalization":  # ONNX allows, but few runtimes do, types of their own
        together = {value.type_str for value in schema.inputs}
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    if not all("tensor(float16)" in allowed.get(name, ()) for name in together):
        return None
    return (
        [value.type_str in together for value in schema.inputs],
        [value.type_str in together for value in schema.outputs],
    )


def is_float(value: ir.Value | None) -> bool:
    """Say whether a value is a float32 tensor."""
    return value is not None and is_tensor(value) and value.dtype is ir.DataType.FLOAT


def is_tensor(value: ir.Value) -> bool:
    """Say whether a value is known to be a tensor, rather than a sequence, say."""
    return isinstance(value.type, ir.TensorType)


def varying(node: ir.Node) -> dict[ir.Value, None]:
    """Return the different float32 inputs of a node that are no constants, in order."""
    return {v: None for v in node.inputs if v is not None and is_float(v) and not is_constant(v)}


def is_indifferent(node: ir.Node) -> bool:
    """Say whether a node reads a tensor in whatever precision it comes."""
    return node.domain in STANDARD and node.op_type in INDIFFERENT
