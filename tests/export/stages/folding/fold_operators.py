"""The linear operators of the table, in every variant, and what the algebra says of each.

behind it:  A (W x + c) = (scale W) x + (scale c + shift)     wherever there is a place for c
before it:  W (A x) + c = (W scale) x + (W shift + c)         unless W reads zeros that A misses
"""

import dataclasses
import itertools
from collections.abc import Callable

from keras_bn.export.report import Reason

SIZE = 5  # of each spatial axis; with kernels of 2 and 3, SAME has to pad
PADS = {"pads": (1, 1), "asymmetric": (0, 1), "SAME_UPPER": None, "SAME_LOWER": None, "VALID": None}


@dataclasses.dataclass(frozen=True)
class Operator:
    """A linear operator with random weights.

    Attributes:
        name: Its variant.
        shape: Of its input.
        build: Appends it to a draft behind a tensor; further arguments are weights to share.
        axis_in: The channels of its input; None if it takes no floating-point input.
        axis_out: The channels of its output; None if a nonlinearity follows.
        holds_shift: Whether it has a place for a constant summand. Otherwise an Add remains.
        no_shift: Why no shift before it can go into it; None if one can.
        limit: The largest index, if it reads a table.
    """

    name: str
    shape: tuple[int, ...]
    build: Callable
    axis_in: int | None
    axis_out: int | None
    holds_shift: bool = True
    no_shift: Reason | None = None
    limit: int = 0


def _product(**options):
    for values in itertools.product(*options.values()):
        yield dict(zip(options, values, strict=True))


def _named(operator, /, **options):
    return " ".join([operator, *(f"{key}={value}" for key, value in options.items())])


# group, channels of the input, channels of the output
GROUPS = {"1": (1, 3, 4), "2": (2, 4, 6), "depthwise": (3, 3, 3), "multiplier": (2, 2, 4)}


def _window(rank, stride, padding, dilation):
    attributes = {"strides": [stride] * rank, "dilations": [dilation] * rank}
    if PADS[padding] is None:
        return {**attributes, "auto_pad": padding}
    return {**attributes, "pads": [n for n in PADS[padding] for _ in range(rank)]}


def convolutions():
    """Return Conv of one to three dimensions."""
    for o in _product(rank=(1, 2, 3), bias=(0, 1), group=GROUPS, stride=(1, 2),
                      padding=PADS, dilation=(1, 2)):  # fmt: skip
        if o["dilation"] > 1 and o["padding"].startswith("SAME"):
            continue  # ONNX Runtime does not take both
        group, inputs, outputs = GROUPS[o["group"]]
        sizes = (outputs, inputs // group, *[3 if o["dilation"] == 1 else 2] * o["rank"])
        window = _window(o["rank"], o["stride"], o["padding"], o["dilation"])

        def build(g, x, weight=None, *, sizes=sizes, group=group, bias=o["bias"], window=window):
            weight = weight or g.normal(*sizes)
            return g.node("Conv", x, weight, *([g.normal(sizes[0])] * bias), group=group, **window)

        no_shift = None if o["padding"] == "VALID" else Reason.ZERO_PADDING
        shape = (2, inputs, *[SIZE] * o["rank"])
        yield Operator(_named("Conv", **o), shape, build, 1, 1, True, no_shift)


def transposed_convolutions():
    """Return ConvTranspose of one to three dimensions."""
    for o in _product(rank=(1, 2, 3), bias=(0, 1), group=GROUPS, stride=(1, 2), padding=PADS,
                      dilation=(1, 2), output_padding=(0, 1)):  # fmt: skip
        if o["output_padding"] >= o["stride"]:
            continue  # ONNX Runtime wants it smaller
        if o["padding"].startswith("SAME") and o["dilation"] > 1:
            continue
        if o["output_padding"] and o["padding"].startswith("SAME"):
            continue  # what it adds is cut off again
        group, inputs, outputs = GROUPS[o["group"]]
        sizes = (inputs, outputs // group, *[3 if o["dilation"] == 1 else 2] * o["rank"])
        window = _window(o["rank"], o["stride"], o["padding"], o["dilation"])
        window["output_padding"] = [o["output_padding"]] * o["rank"]

        def build(g, x, weight=None, *, sizes=sizes, group=group, bias=o["bias"], window=window):
            weight, channels = weight or g.normal(*sizes), sizes[1] * group
            return g.node(
                "ConvTranspose", x, weight, *([g.normal(channels)] * bias), group=group, **window
            )

        shape = (2, inputs, *[3 if o["rank"] < 3 else 2] * o["rank"])
        yield Operator(_named("ConvTranspose", **o), shape, build, 1, 1, True, Reason.SHIFT)


def gemms():
    """Return Gemm with all its factors, transposes and shapes of the bias."""
    for o in _product(alpha=(1.0, 0.5), beta=(1.0, -3.0), transA=(0, 1), transB=(0, 1),
                      bias=(None, (4,), (1, 4), ())):  # fmt: skip

        def build(g, x, weight=None, *, o=o):
            weight = weight or g.normal(*((4, 3) if o["transB"] else (3, 4)))
            bias = [] if o["bias"] is None else [g.normal(*o["bias"])]
            factors = {key: o[key] for key in ("alpha", "beta", "transA", "transB")}
            return g.node("Gemm", x, weight, *bias, **factors)

        shape = (3, 2) if o["transA"] else (2, 3)
        yield Operator(_named("Gemm", **o), shape, build, 1 - o["transA"], 1)


def matmuls():
    """Return MatMul of ranks 2 to 4 with constants on either side, stacks of them too."""
    for o in _product(rank=(2, 3, 4), side=("right", "left"), stack=(0, 1), bias=(0, 1)):
        if o["stack"] and o["rank"] == 2:
            continue
        right, stack = o["side"] == "right", [2] if o["stack"] else []

        def build(g, x, weight=None, *, right=right, stack=stack, bias=o["bias"]):
            weight = weight or g.normal(*stack, *((3, 4) if right else (4, 3)))
            y = g.node("MatMul", *((x, weight) if right else (weight, x)))
            summand = (4,) if right else (4, 1)
            return g.node("Add", y, g.normal(*summand)) if bias else y

        lead = [2, 2, 2][: o["rank"] - 2]
        shape = (*lead, 2, 3) if right else (*lead, 3, 2)
        axis = o["rank"] - (1 if right else 2)
        holds = bool(o["bias"]) or (o["rank"] == 2 and right)
        yield Operator(_named("MatMul", **o), shape, build, axis, axis, holds)


EINSUMS = [  # equation, shapes of x and the weights, axes of the channels
    ("ab,bc->ac", (2, 3), (3, 4), 1, 1),
    ("abc,cd->abd", (2, 2, 3), (3, 4), 2, 2),
    ("abc,bd->adc", (2, 3, 2), (3, 4), 1, 1),
    ("abc,cde->abde", (2, 2, 3), (3, 4, 2), 2, 2),
    ("abcd,cde->abe", (2, 2, 3, 2), (3, 2, 4), 2, 2),
    ("abc,acd->abd", (2, 2, 3), (2, 3, 4), 2, 2),
]


def einsums():
    """Return Einsum with a constant operand, second or first."""
    for (equation, x_shape, w_shape, axis_in, axis_out), o in itertools.product(
        EINSUMS, _product(first=(0, 1), bias=(0, 1))
    ):
        operands, result = equation.split("->")
        if o["first"]:
            equation = ",".join(operands.split(",")[::-1]) + "->" + result
        summand = (4, *[1] * (len(result) - 1 - axis_out))

        def build(g, x, weight=None, *, e=equation, shape=w_shape, o=o, summand=summand):
            weight = weight or g.normal(*shape)
            y = g.node("Einsum", *((weight, x) if o["first"] else (x, weight)), equation=e)
            return g.node("Add", y, g.normal(*summand)) if o["bias"] else y

        name = _named("Einsum", equation=equation, **o)
        yield Operator(name, x_shape, build, axis_in, axis_out, bool(o["bias"]))


def tables():
    """Return Gather of a constant table: the elements are picked, not computed."""
    for shape in [(2,), (2, 3)]:

        def build(g, x, weight=None):
            return g.node("Gather", weight or g.normal(6, 4), x)

        name = _named("Gather", indices=shape)
        yield Operator(name, shape, build, None, len(shape), limit=6)


def recurrences():
    """Return LSTM, GRU and RNN, which are linear in what they read."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    for o in _product(
        kind=gates, direction=("forward", "bidirectional"), bias=(0, 1), reset=(0, 1)
    ):
        if o["reset"] and o["kind"] != "GRU":
            continue

        def build(g, x, weight=None, *, o=o):
            count, hidden = 1 + (o["direction"] == "bidirectional"), 2
            rows = gates[o["kind"]] * hidden
            weight = weight or g.normal(count, rows, 3)
            bias = [g.normal(count, 2 * rows)] if o["bias"] else []
            options = {"linear_before_reset": 1} if o["reset"] else {}
            recurrent = g.normal(count, rows, hidden)
            return g.node(
                o["kind"], x, weight, recurrent, *bias,
                hidden_size=hidden, direction=o["direction"], **options,
            )  # fmt: skip

        yield Operator(_named("recurrent", **o), (3, 2, 3), build, 2, None)


FAMILIES = {
    "Conv": list(convolutions()),
    "ConvTranspose": list(transposed_convolutions()),
    "Gemm": list(gemms()),
    "MatMul": list(matmuls()),
    "Einsum": list(einsums()),
    "Gather": list(tables()),
    "recurrent": list(recurrences()),
}


def start(g, operator):
    """Add the input of an operator to a draft."""
    if operator.limit:
        return g.indices(operator.limit, *operator.shape)
    return g.input(*operator.shape)
