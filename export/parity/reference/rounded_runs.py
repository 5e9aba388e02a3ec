"""How far rounding alone may take a model's outputs, whatever the order of its sums.

The model runs in float64 with every weight w and every output y of a layer rounded at random:

    w (1 + epsilon u / 2),  y (1 + epsilon u),   u uniform in [-1, 1]

(Monte Carlo arithmetic: D. S. Parker 1997, UCLA CSD-970002). A sigmoid or an error function, in a
layer, a recurrent cell or a model's own code, is rounded as y + epsilon u, and SiLU and GELU, which
are x times such a gate, as y + |x| epsilon u: ONNX Runtime's errors in these are absolute, and all
that there is to see where every gate is shut. A sum or a mean over many positions, such as a norm
takes, is rounded by as much as the order of its additions may make of it (`sums.py`), and so is a
convolution of thousands of terms. What comes out differs from the truth as an implementation in
that precision may, and so tells a network that enlarges rounding errors, on which Keras itself may
have been lucky, from a file that is wrong. `reflection.py` says how often it runs.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.ops import gen_math_ops, gen_nn_ops

from keras_bn.interception import call_of, replaced_methods

from ...runtime.session import Samples, run_batches
from ...signature import Signature
from .float64_weights import Float64Weights
from .keras_runs import in_keras
from .reflection import Reading, run_with_twins
from .sums import SINGLE, convolution_share, sum_error

__all__ = ["run_rounded"]

GATES = ("sigmoid", "erf", "erfc")  # of at most 2
SATURATING = ("softmax", "sigmoid", "tanh")  # all or nothing where they read large values
GATED = ("silu", "swish", "gelu")  # x times a gate
# What every sum of TensorFlow's ends in, be it in a norm, in pooling or in a model's own code.
SUMS = {"_sum": True, "mean": False}  # whether it is the sum itself, not its n-th part
CONVOLUTIONS = ("conv2d", "conv3d")


def run_rounded(
    model: keras.Model, signature: Signature, batches: list[Samples], epsilon: float
) -> list[Samples]:
    """Return the joined outputs of a few runs that round at random, always the same ones.

    Args:
        model: A model that can run in float64; its state stays as it is.
        signature: What it is called with.
        batches: The inputs.
        epsilon: How far rounding may go, relative to each value.
    """

    def run(generator: np.random.Generator | None, reading: Reading) -> Samples:
        weights = Float64Weights(model)
        rounding: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
        if generator is not None:
            rounded, off = _at_random(generator)
            weights.values = [(v, rounded(value, epsilon / 2)) for v, value in weights.values]
            rounding = functools.partial(_rounding, model, rounded, off, epsilon)

        @contextlib.contextmanager
        def within() -> Iterator[None]:
            with rounding(), _reading(reading):
                yield

        once, _ = in_keras(model, signature, weights, within)
        return run_batches(once, batches)

    return run_with_twins(run)


def _at_random(generator: np.random.Generator) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return a function that rounds at random, and one that is off by an error either way."""

    def rounded(tensor: Any, step: float, scale: Any = None) -> Any:
        noise = generator.uniform(-step, step, tuple(tensor.shape))
        magnitude = tf.abs(tensor) if scale is None else scale
        return tensor + magnitude * keras.ops.convert_to_tensor(noise, tensor.dtype)

    def off(tensor: Any, error: np.ndarray) -> Any:
        either_way = error * generator.choice([-1.0, 1.0], error.shape)
        return tensor + tf.reshape(either_way, tensor.shape)

    return rounded, off


@contextlib.contextmanager
def _reading(reading: Reading) -> Iterator[None]:
    """Let saturating functions read what `reading` returns, for as long as the block runs."""

    def of(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            x, *others = args or (kwargs.pop("logits" if "logits" in kwargs else "x"),)
            if hasattr(x, "numpy") and x.dtype == tf.float64:  # no symbol, nor of another thread
                x = tf.convert_to_tensor(reading(x.numpy()))
            return function(x, *others, **kwargs)

        return called

    with replaced_methods(
        (module, name, of(function)) for module, name, function in _functions(SATURATING)
    ):
        yield


def _functions(names: Iterable[str]) -> list[tuple[Any, str, Callable[..., Any]]]:
    """Return TensorFlow's functions of these names, as they are now, and where they are found."""
    return [
        (module, name, vars(module)[name])
        for module in (tf, tf.math, tf.nn)
        for name in names
        if name in vars(module)
    ]


@contextlib.contextmanager
def _rounding(
    model: keras.Model, rounded: Callable[..., Any], off: Callable[..., Any], epsilon: float
) -> Iterator[None]:
    """Let every layer, gate and sum round what it returns for as long as the block runs."""

    def of_layer(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: keras.tree.map_structure(
            lambda value: rounded(value, epsilon) if _is_float(value) else value,
            call(*args, **kwargs),
        )

    def of_gate(function: Callable[..., Any], *, gated: bool) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            y = function(*args, **kwargs)
            if y.dtype != tf.float64:  # of another thread
                return y
            if not gated:
                return rounded(y, epsilon, 1.0)
            return rounded(y, epsilon, tf.abs(args[0] if args else kwargs["features"]))

        return called

    layers = list({id(layer): layer for layer in model._flatten_layers()}.values())
    gates = [
        (module, name, of_gate(function, gated=name in GATED))
        for module, name, function in _functions((*GATES, *GATED))
    ]
    calls = [(layer, call_of(layer)) for layer in layers]
    rounding = [(layer, name, of_layer(getattr(layer, name))) for layer, name in calls]
    sums = [
        (gen_math_ops, name, _rounded_sum(vars(gen_math_ops)[name], total, off, epsilon))
        for name, total in SUMS.items()
    ]
    sums += [
        (gen_nn_ops, name, _rounded_convolution(vars(gen_nn_ops)[name], off, epsilon))
        for name in CONVOLUTIONS
    ]
    with replaced_methods(rounding + gates + sums):
        yield


def _rounded_sum(
    function: Callable[..., Any], total: bool, off: Callable[..., Any], epsilon: float
) -> Callable[..., Any]:
    """Return a sum or a mean that is off as the order of its additions may make it."""

    def called(x: Any, axis: Any, *args: Any, **kwargs: Any) -> Any:
        y = function(x, axis, *args, **kwargs)
        if not hasattr(x, "numpy") or y.dtype != tf.float64:  # a symbol in a loop; another thread
            return y
        terms = x.numpy()
        error = sum_error(terms, tuple({int(a) % terms.ndim for a in np.ravel(axis)}))
        count = 1 if total else terms.size / max(error.size, 1)
        return off(y, error * epsilon / SINGLE / max(count, 1))

    return called


def _rounded_convolution(
    function: Callable[..., Any], off: Callable[..., Any], epsilon: float
) -> Callable[..., Any]:
    """Return a convolution that is off as the order of its additions may make it."""
    signature = inspect.signature(function)

    def called(*args: Any, **kwargs: Any) -> Any:
        y = function(*args, **kwargs)
        if not hasattr(y, "numpy") or y.dtype != tf.float64:  # a symbol in a loop; another thread
            return y
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        if arguments["data_format"].startswith("NC"):  # float64 is computed with these last
            return y
        x, kernel = (tf.convert_to_tensor(arguments[name]) for name in ("input", "filter"))
        share = convolution_share(x.numpy(), kernel.numpy(), arguments["dilations"][1:-1])
        if not share:
            return y
        arguments |= {"input": tf.abs(x), "filter": tf.abs(kernel)}
        whole = function(*bound.args, **bound.kwargs)
        return off(y, whole.numpy() * (share * epsilon / SINGLE))

    return called


def _is_float(value: Any) -> bool:
    return isinstance(value, tf.Tensor) and value.dtype.is_floating
