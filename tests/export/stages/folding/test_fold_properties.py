"""Random graphs stay the same function, and the generator reaches what it has to reach."""

import collections

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.export.stages.folding.fold_graphs import random_graph
from tests.export.stages.folding.fold_pieces import AFFINE
from tests.export.stages.folding.fold_sweep import examine, explain, sweep

OPERATORS = set(
    """Abs Add AveragePool BatchNormalization Cast Clip Concat Conv ConvTranspose DepthToSpace Div
    Dropout Einsum Elu Expand Flatten GRU Gather Gemm GlobalAveragePool GlobalMaxPool Identity If
    LSTM LeakyRelu MatMul Max MaxPool Mul Neg PRelu Pad RNN ReduceMax ReduceMean ReduceSum Relu
    Reshape Resize Sigmoid Slice Softmax SpaceToDepth Split Squeeze Sub Sum Tanh Tile Transpose
    Unsqueeze""".split()
)
LINEAR = "Conv ConvTranspose Einsum GRU Gemm LSTM MatMul RNN".split()
SEEDS = st.integers(0, 2**32 - 1)
MANY = 20_000


@settings(max_examples=60, phases=[Phase.explicit, Phase.generate])  # a seed cannot be shrunk
@given(SEEDS)
def test_random_graph_stays_the_same_function(seed):
    assert examine(seed) is None, explain(seed)


def test_generator_reaches_every_operator_and_every_neighbour():
    operators, pairs = collections.Counter(), collections.Counter()
    for seed in range(500):
        model = random_graph(seed).model
        for node in model.graph:
            operators[node.op_type] += 1
            before = [value.producer() for value in node.inputs if value is not None]
            pairs.update((other.op_type, node.op_type) for other in before if other is not None)
    assert set(operators) >= OPERATORS
    wanted = {(affine, linear) for affine in AFFINE for linear in LINEAR}
    wanted |= {pair[::-1] for pair in wanted} | {("Gather", affine) for affine in AFFINE}
    assert set(pairs) >= wanted, wanted - set(pairs)
    affine = sum(operators[name] for name in AFFINE)
    assert 0.3 < affine / operators.total() < 0.5


@pytest.mark.slow
def test_thousands_of_random_graphs():
    failures, _ = sweep(0, MANY)
    lines = [f"{seed}: {wrong}" for seed, wrong in failures[:50]]
    first = explain(failures[0][0]) if failures else ""
    assert not failures, "\n".join([f"{len(failures)} of {MANY} fail", *lines, first])
