"""Searches along a long row of sums that end in a refusal cost little, and say the same."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from keras_bn.export import Reason, fold_batch_norms
from keras_bn.export.stages.folding import fold as walk
from tests.export.foreign_graphs import outputs
from tests.tolerances import assert_close

CHANNELS = 4


def residual(blocks, *, negative=True, end="Relu"):
    """Return a pre-activation network: each block adds conv(relu(bn(x))) to x."""
    rng, weights, nodes = np.random.default_rng(0), [], []

    def weight(name, array):
        weights.append(numpy_helper.from_array(np.float32(array), name))
        return name

    last = "x"
    for i in range(blocks):
        gamma = rng.uniform(0.5, 1.5, CHANNELS)
        gamma[0] *= -1 if negative else 1
        statistics = [gamma, *rng.normal(size=(2, CHANNELS)), rng.uniform(0.5, 1.5, CHANNELS)]
        names = [weight(f"{name}{i}", a) for name, a in zip("gbmv", statistics, strict=True)]
        kernel = weight(f"w{i}", rng.normal(size=(CHANNELS, CHANNELS, 1, 1)) / 2)
        first = helper.make_node("Conv", [last, kernel, weight(f"s{i}", gamma)], [f"t{i}"])
        nodes += [first] if i == 0 else []
        last = f"t{i}" if i == 0 else last
        nodes += [
            helper.make_node("BatchNormalization", [last, *names], [f"n{i}"]),
            helper.make_node("Relu", [f"n{i}"], [f"r{i}"]),
            helper.make_node("Conv", [f"r{i}", kernel, f"s{i}"], [f"c{i}"]),
            helper.make_node("Add", [last, f"c{i}"], [f"u{i}"]),
        ]
        last = f"u{i}"
    nodes.append(helper.make_node(end, [last], ["y"]))
    ends = [helper.make_tensor_value_info(name, 1, ["N", CHANNELS, 2, 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "residual", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def searched(monkeypatch, blocks, **options):
    """Return how many operators were looked at, and the report."""
    looks, moves_of = [], walk.moves_of
    monkeypatch.setattr(walk, "moves_of", lambda *args: looks.append(1) or moves_of(*args))
    _, report = fold_batch_norms(residual(blocks, **options))
    return len(looks), report


@pytest.mark.parametrize("negative", [True, False])
def test_searches_grow_with_the_number_of_blocks(negative, monkeypatch):
    few, _ = searched(monkeypatch, 10, negative=negative)
    many, report = searched(monkeypatch, 40, negative=negative)
    assert many < 5 * few
    assert len(report.refusals) == (40 if negative else 0)


def test_reasons_name_what_is_in_the_way_of_each():
    _, report = fold_batch_norms(residual(6))
    second = next(row for row in report.refusals if row.node == "n2")
    assert second.reason is Reason.USED_ELSEWHERE
    assert "tensor 'u1' has 2 readers" in second.detail
    assert (second.forward_reason, second.both_reason) == (Reason.SHIFT, Reason.NEGATIVE_SCALE)
    assert "Relu r2" in second.forward_detail
    assert "Relu r2" in second.both_detail


@pytest.mark.parametrize("end", ["Relu", "GlobalAveragePool", "Sigmoid", "Identity"])
@pytest.mark.parametrize("negative", [True, False])
def test_fold_of_a_trunk_is_exact(negative, end, rng):
    proto = residual(5, negative=negative, end=end)
    if end == "GlobalAveragePool":
        proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, ["N", CHANNELS, 1, 1]))
    x = rng.normal(size=(3, CHANNELS, 2, 2)).astype(np.float32)
    result, report = fold_batch_norms(proto)
    onnx.checker.check_model(result, full_check=True)
    assert_close(outputs(result, x=x)[0], outputs(proto, x=x)[0], 1e-5)
    assert len(report.folds) + len(report.refusals) == 5
