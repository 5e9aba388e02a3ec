"""Remove what the converter leaves behind: exactly, or not at all.

A row of small stages, each with its equations at the top of its file, is repeated until none finds
anything more to do; so a second call changes nothing.

    noops            operators that change nothing
    shape_constants  shapes that are computed at run time
    repetition       UpSampling
    reshaping        Reshape, Squeeze, Unsqueeze and Flatten in a row
    padding          Pad in front of Conv and pools, crops behind ConvTranspose, SAME as numbers
    one_dimension    Conv1D and 1-D pools, which TensorFlow computes in two dimensions
    hard_sigmoid     clamps between 0 and 1, as in hard swish
    runtime_traps    what ONNX Runtime gets wrong

Nodes of other domains, nodes that hold graphs, and values of unknown shape or dtype stay as they
are. A graph never gets more nodes. The last stage keeps their number.
"""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from .editor import Editor
from .hard_sigmoid import write_hard_sigmoids
from .noops import drop_noops
from .one_dimension import drop_axes_of_one
from .padding import absorb_padding, state_padding
from .repetition import merge_repetitions
from .reshaping import merge_reshapes
from .runtime_traps import avoid_half_products, avoid_runtime_traps
from .shape_constants import drop_flattening, fix_integers
from .shapes.inference import known_shapes

__all__ = ["keep_half_loadable", "simplify"]

OLDEST = 13  # since when the axes of Squeeze and Unsqueeze are an input
STAGES = (
    drop_noops,
    fix_integers,
    drop_flattening,
    merge_repetitions,
    merge_reshapes,
    absorb_padding,
    state_padding,
    drop_axes_of_one,
    write_hard_sigmoids,
    avoid_runtime_traps,
)


def simplify(model: ir.Model) -> ir.Model:
    """Write the same computation with fewer nodes.

    Args:
        model: Any graph; stays unchanged. Of opset 13 or newer; an older one is only copied.

    Returns:
        A new model with the same inputs, outputs and results, whose values carry the shapes that
        are known of them. A second call changes nothing.

    Example:
        >>> import onnx, onnx_ir
        >>> text = '''<ir_version: 10, opset_import: ["": 18]>
        ... g (float[N,4,6,6] x) => (float[N,144] y) {
        ...     s = Shape<start = 0, end = 1>(x) c = Constant<value_ints = [144]>()
        ...     t = Concat<axis = 0>(s, c) y = Reshape(x, t)
        ... }'''
        >>> from keras_bn.export.stages.constants.evaluate import evaluate_constants
        >>> model = evaluate_constants(onnx_ir.from_proto(onnx.parser.parse_model(text)))
        >>> [node.op_type for node in simplify(model).graph]
        ['Reshape']
    """
    model = model.clone()
    graph = model.graph
    changed = True
    while changed:
        editor, changed = Editor(graph, known_shapes(graph)), False
        if editor.opset < OLDEST:
            return model
        for stage in STAGES:
            if stage(editor):
                changed = True
                RemoveUnusedNodesPass()(model)
    editor.declare_shapes()
    return model


def keep_half_loadable(model: ir.Model) -> None:
    """Rewrite, in place, what ONNX Runtime cannot load once a graph computes in float16."""
    editor = Editor(model.graph, known_shapes(model.graph))
    if avoid_half_products(editor):
        RemoveUnusedNodesPass()(model)
