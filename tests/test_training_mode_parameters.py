"""Statistics of a batch norm in training mode keep initializers of their own.

ONNX Runtime 1.32 writes the running statistics over their initializers
(findings/ort_statistics_share_memory.sh).
A fold that made one of two equal initializers would let B and scale drift from run to run.
"""

import onnx

from keras_bn.export import fold_batch_norms

NEW = """<ir_version: 8, opset_import: ["": 15]> g (float[2, 1, 1, 1] x) => (float[2, 1, 1, 1] y)
<float[1] scale = {1}, float[1] B = {0}, float[1] mean = {0}, float[1] variance = {1}>
{ y, m, v = BatchNormalization <training_mode = 1> (x, scale, B, mean, variance) }"""


def test_equal_parameters_of_a_batch_norm_in_training_mode_stay_apart():
    folded, report = fold_batch_norms(onnx.parser.parse_model(NEW))
    (node,) = folded.graph.node
    assert [refusal.reason.name for refusal in report.refusals] == ["TRAINING_MODE"]
    assert len(set(node.input)) == 5
