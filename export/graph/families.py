"""Families of ONNX's operators, by what they do to the elements of a tensor.

A stage that means a family takes it from here; one that leaves some of it out on purpose writes
the difference.
"""

__all__ = [
    "BROADCASTING",
    "DISCRETE",
    "ELEMENTWISE",
    "MOVING",
    "NONLINEAR",
    "REARRANGING",
    "REDUCING",
    "RESHAPING",
    "TAKING",
    "UNARY",
    "is_quantised",
]

# Of the data, the first input, element by element; other inputs are numbers.
UNARY = frozenset(
    """Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Clip Cos Cosh Elu Erf Exp
    Floor Gelu HardSigmoid HardSwish IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round
    Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh
    ThresholdedRelu""".split()
)
# Of all inputs, element by element.
BROADCASTING = frozenset(
    """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less
    LessOrEqual Max Mean Min Mod Mul Or PRelu Pow Sub Sum Where Xor""".split()
)
ELEMENTWISE = UNARY | BROADCASTING

# Through these no affine map of the data goes, whatever it is.
NONLINEAR = frozenset(
    """Acos Acosh ArgMax ArgMin Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh Elu Equal Erf Exp
    Floor Gelu Greater GroupNormalization HardSigmoid HardSwish Hardmax InstanceNormalization
    LRN LayerNormalization Less Log LogSoftmax LpNormalization Max Min Mish Mod Pow Reciprocal
    Round Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Swish Tan Tanh
    ThresholdedRelu TopK""".split()
)

REDUCING = frozenset(
    """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare""".split()
)

RESHAPING = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
# Each element of the data is in the result once.
REARRANGING = RESHAPING | {"Identity", "Transpose"}
# Each element of the result is one of the data.
TAKING = frozenset("Concat Expand Gather GatherElements GatherND Slice Split Tile".split())
# Likewise, or it is a constant; what moves elements and computes nothing.
MOVING = REARRANGING.union(
    TAKING,
    """Compress DepthToSpace Dropout Pad ReverseSequence SpaceToDepth Trilu Where""".split(),
)

# Rounding their operands otherwise may give quite another result.
DISCRETE = frozenset(
    """ArgMax ArgMin Ceil Equal Floor Greater GreaterOrEqual IsInf IsNaN Less LessOrEqual Mod
    NonMaxSuppression NonZero Round Sign TopK Unique""".split()
)

# With numbers of 8 bits or fewer.
QUANTISED = frozenset({"DequantizeLinear", "QAttention", "QGemm", "QuantizeLinear"})
QUANTISED_PREFIXES = ("DynamicQuantize", "QEmbed", "QLinear", "QOrdered")


def is_quantised(operator: str) -> bool:
    """Say whether an operator takes or makes numbers of 8 bits or fewer."""
    return operator in QUANTISED or operator.startswith(QUANTISED_PREFIXES) or "Integer" in operator
