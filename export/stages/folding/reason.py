"""Why an affine operator stays where it is: and what an algebraic law raises."""

import enum

__all__ = ["ADVICE", "ADVICE_ON_BATCH_NORMS", "NotExactError", "Reason"]


class Reason(enum.StrEnum):
    """Why an affine operator stays in the graph; the text of a `Refusal`."""

    TRAINING_MODE = "the batch norm is in training mode"
    PARAMETERS_NOT_CONSTANT = "its parameters are graph inputs or computed at run time"
    NOT_PER_CHANNEL = "it differs along an axis that the operator there does not keep"
    NOT_LINEAR = "a nonlinear operator is in the way"
    NEGATIVE_SCALE = "a maximum, ReLU or absolute value is in the way of a negative scale"
    SHIFT = "an operator that only a scale can pass is in the way of a shift"
    ZERO_PADDING = "a zero-padded operator is in the way of a shift"
    GRAPH_INPUT = "a graph input is in the way"
    GRAPH_OUTPUT = "the tensor is a graph output"
    USED_ELSEWHERE = "the tensor has another reader that cannot make up for it"
    OPERATOR_UNKNOWN = "an operator that this version does not know is in the way"
    OPERATOR_HAS_NO_BIAS = "it is the bias of a linear operator that cannot hold one"
    NOT_ONE_OPERATOR = "it would turn one affine operator into two"
    WEIGHT_NOT_CONSTANT = "the linear operator's weights are graph inputs or computed at run time"
    SHAPE_UNKNOWN = "the shape of a tensor in the way is not known"
    OTHER_GRAPH = "the tensor crosses the border of a subgraph"
    FUNCTION = "it is in a local function, which is left whole"
    QUANTISED = "the graph is quantised, and left whole"
    OPSET_TOO_OLD = "the graph is of an opset older than 9, and left whole"
    NOT_FINITE = "the folded weights would overflow or are not numbers"
    BITS_LOST = "the folded weights would lose too many bits"
    SEARCH_TOO_LONG = "too many operators are in the way"
    FUSED = "ONNX Runtime makes one operator of it and those around it, as they are written"


# What a person can do about it, where there is something: completes "to fold it, ...".
ADVICE = {
    Reason.PARAMETERS_NOT_CONSTANT: "make its parameters constants",
    Reason.GRAPH_OUTPUT: "take that tensor off the outputs",
    Reason.WEIGHT_NOT_CONSTANT: "make the weights constants",
    Reason.SHAPE_UNKNOWN: "state the sizes of the inputs",
    Reason.QUANTISED: "fold the file before it is quantised",
    Reason.OPSET_TOO_OLD: "convert the file to opset 9 or newer",
}
ADVICE_ON_BATCH_NORMS = {
    Reason.TRAINING_MODE: "call its layer without training=True",
    Reason.NOT_LINEAR: "build the network with it directly behind a convolution or a dense layer",
    Reason.NEGATIVE_SCALE: "train its gamma at 0 or above, as gamma_constraint='non_neg' does",
    Reason.ZERO_PADDING: "build the network with it behind the padded operator",
    **ADVICE,
}


class NotExactError(Exception):
    """The algebra does not allow a move.

    Attributes:
        reason: Which law stands in the way.
        detail: What was found, for a person to read.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
