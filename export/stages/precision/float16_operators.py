"""How operators behave in float16: which are safe in it, which are not, and why."""

from collections.abc import Mapping

from ...graph.families import MOVING

__all__ = [
    "ARGUMENTS",
    "ELEMENTWISE",
    "KERNELS",
    "KNOWN",
    "SENSITIVE",
    "SOURCES",
    "SUMMANDS",
    "SUMS",
    "UNBOUNDED",
    "UNSATURATED",
]

ELEMENTWISE = frozenset(
    """Abs Add Celu Clip Div Elu Erf Gelu HardSigmoid HardSwish LeakyRelu Max Min Mul Neg PRelu Relu
    Selu Sigmoid Softsign Sub Sum Tanh""".split()
)
SUMMANDS = frozenset({"Add", "Sub", "Sum"})
SUMS = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean", "ReduceSum"})
OTHER = frozenset(
    {"BatchNormalization", "GlobalMaxPool", "MaxPool", "ReduceMax", "ReduceMin", "Resize"}
)
# Operators with kernels, and the axis of the output channels in each of them, by input.
KERNELS: Mapping[str, Mapping[int, int]] = {
    "Conv": {1: 0},
    "ConvTranspose": {1: 1},
    "Einsum": {},
    "GRU": {1: 1, 2: 1},
    "Gemm": {0: 0, 1: 1},
    "LSTM": {1: 1, 2: 1},
    "MatMul": {0: -2, 1: -1},
    "RNN": {1: 1, 2: 1},
}
KNOWN = MOVING | ELEMENTWISE | SUMS | OTHER | KERNELS.keys()

# For a relative error of a result, the input whose relative error matters.
ARGUMENTS = {"Div": 1, "Log": 0, "Pow": 0, "Reciprocal": 0, "Sqrt": 0}
UNBOUNDED = frozenset({"Div", "Exp", "Pow", "Reciprocal"})
UNSATURATED = frozenset({"Abs", "Add", "Clip", "Max", "Min", "Mul", "Neg", "Relu", "Sub", "Sum"})
SENSITIVE = frozenset(
    """Acos Acosh Asin Atanh Cosh CumSum Exp GroupNormalization InstanceNormalization
    LayerNormalization Log LogSoftmax LpNormalization LRN MeanVarianceNormalization Mish Pow
    Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceProd ReduceSumSquare
    RMSNormalization Sinh Softmax Softplus Sqrt Tan""".split()
)
SOURCES = frozenset({"Cast", "ConstantOfShape", "EyeLike", "OneHot", "Range"})
