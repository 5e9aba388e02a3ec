"""Keras's recurrent layers as ONNX's LSTM, GRU and RNN.

    LSTM        gates i, f, c, o  ->  i, o, f, c
    GRU         gates z, r, h, as they are; `reset_after` is ONNX's linear_before_reset
    SimpleRNN   as it is

each with transposed kernels, the bias before the recurrent bias, and time as the first dimension.
A layer that is masked, unrolled, has a cell of its own making, or an activation without an ONNX
name stays the loop that TensorFlow writes.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from .conversions import place_operator

__all__ = ["recurrent_method"]

# Keras's activations that ONNX's recurrent operators know, with alpha and beta where they have any.
ACTIVATIONS: dict[Any, tuple[str, tuple[float, float] | None]] = {
    keras.activations.hard_sigmoid: ("HardSigmoid", (1.0 / 6.0, 0.5)),
    keras.activations.linear: ("Affine", (1.0, 0.0)),
    keras.activations.relu: ("Relu", None),
    keras.activations.sigmoid: ("Sigmoid", None),
    keras.activations.softplus: ("Softplus", None),
    keras.activations.softsign: ("Softsign", None),
    keras.activations.tanh: ("Tanh", None),
}

Known = list[Any]  # the activations of a cell, as ONNX has them
Write = tuple[str, list[Any], dict[str, Any], Known]  # operator, weights, attributes, activations


def recurrent_method(layer: Any) -> tuple[str, Callable[..., Any]] | None:
    """Return the method of a layer to replace and by what; None if the layer is none of these."""
    loops: dict[Any, tuple[Any, Callable[..., Any]]] = {
        keras.layers.LSTM.inner_loop: (keras.layers.LSTMCell, _lstm),
        keras.layers.GRU.inner_loop: (keras.layers.GRUCell, _gru),
        keras.layers.RNN.inner_loop: (keras.layers.SimpleRNNCell, _simple_rnn),
    }
    cell, write = loops.get(getattr(type(layer), "inner_loop", None), (None, None))
    if write is None or type(getattr(layer, "cell", None)) is not cell:
        return None
    names = ("recurrent_activation", "activation")
    activations = [getattr(layer.cell, name) for name in names if hasattr(layer.cell, name)]
    if layer.unroll or not all(activation in ACTIVATIONS for activation in activations):
        return None
    known = [ACTIVATIONS[activation] for activation in activations]
    return "inner_loop", lambda *args, **kwargs: _recurrent(layer, write, known, *args, **kwargs)


def _recurrent(
    layer: Any,
    write: Callable[..., Any],
    known: Known,
    sequences: Any,
    initial_state: Any,
    mask: Any = None,
    training: Any = False,
) -> Any:
    """Return what `inner_loop` does: the last output, all outputs, and the states."""
    del training
    cell, x = layer.cell, sequences
    if any(part is not None for part in keras.tree.flatten(mask)):
        return None
    if x.shape.rank != 3 or x.dtype not in (tf.float32, tf.float64):
        return None
    if layer.go_backwards:
        x = tf.reverse(x, [1])
    x = tf.transpose(x, [1, 0, 2])
    given = [tf.convert_to_tensor(state) for state in keras.tree.flatten(initial_state)]
    states = [None if _is_zero(state) else state[tf.newaxis] for state in given]
    operator, weights, attributes, used = write(cell, known)
    attributes |= {"hidden_size": cell.units, "activations": [name for name, _ in used]}
    parameters = [pair for _, pair in used if pair is not None]
    if parameters:
        attributes["activation_alpha"] = [alpha for alpha, _ in parameters]
        attributes["activation_beta"] = [beta for _, beta in parameters]
    shape = (x.shape[1], cell.units)
    y, *last = place_operator(
        operator,
        [x, *weights, None, *states],
        [(x.shape[0], 1, *shape), *[(1, *shape)] * len(states)],
        attributes,
    )
    final = [tf.squeeze(state, 0) for state in last]
    outputs = tf.transpose(tf.squeeze(y, 1), [1, 0, 2]) if layer.return_sequences else final[0]
    return final[0], outputs if layer.return_sequences else final[0][:, tf.newaxis], final


def _is_zero(state: Any) -> bool:
    """Say whether a state is the zeros that Keras starts from, which ONNX does too."""
    if state.op.type in ("Fill", "Const"):
        value = tf.get_static_value(state.op.inputs[1] if state.op.type == "Fill" else state)
        return value is not None and not value.any()
    return False


def _lstm(cell: Any, known: Known) -> Write:
    recurrent, activation = known

    def reordered(weight: Any, axis: int) -> Any:
        i, f, c, o = tf.split(tf.convert_to_tensor(weight), 4, axis)
        return tf.concat([i, o, f, c], axis)

    bias = reordered(cell.bias, 0) if cell.use_bias else None
    return (
        "LSTM",
        [
            tf.transpose(reordered(cell.kernel, 1))[tf.newaxis],
            tf.transpose(reordered(cell.recurrent_kernel, 1))[tf.newaxis],
            None if bias is None else tf.concat([bias, tf.zeros_like(bias)], 0)[tf.newaxis],
        ],
        {},
        [recurrent, activation, activation],
    )


def _gru(cell: Any, known: Known) -> Write:
    bias = None
    if cell.use_bias:
        bias = tf.convert_to_tensor(cell.bias)
        bias = tf.reshape(bias, [-1]) if cell.reset_after else tf.concat([bias, bias * 0.0], 0)
        bias = bias[tf.newaxis]
    return (
        "GRU",
        [*(tf.transpose(w)[tf.newaxis] for w in (cell.kernel, cell.recurrent_kernel)), bias],
        {"linear_before_reset": int(cell.reset_after)},
        list(known),
    )


def _simple_rnn(cell: Any, known: Known) -> Write:
    bias = None
    if cell.use_bias:
        bias = tf.convert_to_tensor(cell.bias)
        bias = tf.concat([bias, tf.zeros_like(bias)], 0)[tf.newaxis]
    weights = [tf.transpose(w)[tf.newaxis] for w in (cell.kernel, cell.recurrent_kernel)]
    return "RNN", [*weights, bias], {}, list(known)
