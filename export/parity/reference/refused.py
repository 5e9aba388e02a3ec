"""Convolutions and pools that this CPU's TensorFlow refuses, computed in a way that it runs.

    the channels first                 the same with the channels last, transposed there and back
    a transposed convolution, dilated  a convolution, dilated, of the input with s - 1 zeros between
                                       its values, by the kernel turned round
    a convolution in groups            one for each group, joined
    a dilated convolution in 3-D       `tf.nn.convolution`, which cuts space into batches
    a pool in 3-D                      over two axes, then over the third

Which of these TensorFlow refuses depends on the CPU, the dtype and on whether oneDNN is on, and so
each kind is tried once, on a tensor of zeros. What is not refused stays TensorFlow's. The functions
are those through which every convolution and pool of Keras and of `tf.nn` goes; one stand-in may
call another.

No way multiplies what the operator would not, so that an infinity stays where it is; a mean over
some axes and then over others is the mean, in padding "same" too, because how many values count is
a product of one factor for each axis.
"""

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.ops import gen_nn_ops

from keras_bn.interception import replaced_methods

from ...graph.layer_paths import LayerPaths

__all__ = ["StoodIn", "standing_in"]

Arguments = dict[str, Any]
Operator = Callable[..., Any]
Way = Callable[[str, Arguments], Any]

NOUNS = {
    "conv2d": "convolution",
    "conv3d": "convolution",
    "depthwise_conv2d_native": "depthwise convolution",
    "conv2d_backprop_input": "transposed convolution",
    "conv3d_backprop_input_v2": "transposed convolution",
    "max_pool": "max pooling",
    "max_pool3d": "max pooling",
    "avg_pool": "average pooling",
    "avg_pool3d": "average pooling",
}
CHANNELS_LAST = {"NCHW": "NHWC", "NCDHW": "NDHWC"}
TENSORS = ("input", "value", "out_backprop")  # whichever has the layout
BY_AXIS = ("strides", "dilations", "ksize")
NAMED = 3  # layers that a note names


class StoodIn:
    """What had a stand-in, for the notes of a report."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}

    def add(self, what: str, dtype: str, layer: str) -> None:
        """Note an operator, in words, of a layer."""
        dtypes, layers = self._found.setdefault(what, ({}, {}))
        dtypes[dtype] = layers[layer] = None

    @property
    def notes(self) -> list[str]:
        """A sentence for each kind of operator."""
        return [
            f"TensorFlow runs no {what} in {' or '.join(dtypes)} on this CPU: for "
            f"{_listed(list(layers))} what Keras gives, and the truth, come from an equal "
            "computation"
            for what, (dtypes, layers) in self._found.items()
        ]


def _listed(layers: list[str]) -> str:
    named = ", ".join(map(repr, layers[:NAMED]))
    more = f" and {len(layers) - NAMED} more" if len(layers) > NAMED else ""
    return f"layer{'s' * (len(layers) > 1)} {named}{more}"


@contextlib.contextmanager
def standing_in(model: keras.Model, stood_in: StoodIn) -> Iterator[None]:
    """Compute what this CPU's TensorFlow refuses for as long as the block runs.

    Args:
        model: The model that runs.
        stood_in: Takes what had a stand-in.
    """

    @functools.cache
    def paths() -> dict[int, str]:
        return {id(layer): path for path, layer in LayerPaths(model).layers().items()}

    def note(what: str, dtype: str) -> None:
        scopes = global_state.get_global_attribute("name_scope_stack") or []
        callers = [paths()[id(s.caller)] for s in scopes if id(s.caller) in paths()]
        stood_in.add(what, dtype, callers[-1] if callers else str(model.name))

    inside: list[str] = []
    operators = {name: vars(gen_nn_ops)[name] for name in NOUNS}
    replaced = [
        (gen_nn_ops, name, _or_stand_in(name, original, note, inside))
        for name, original in operators.items()
    ]
    with replaced_methods(replaced):
        yield


def _or_stand_in(
    name: str, original: Operator, note: Callable[[str, str], None], inside: list[str]
) -> Operator:
    """Return an operator that has a stand-in where TensorFlow refuses it."""
    signature = inspect.signature(original)
    defaults = {
        key: parameter.default
        for key, parameter in signature.parameters.items()
        if parameter.default not in (parameter.empty, None)
    }

    @functools.wraps(original)
    def called(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        given = {key: value for key, value in bound.arguments.items() if value is not None}
        arguments = {**defaults, **given}
        tensor = next(key for key in TENSORS if key in arguments)
        x = arguments[tensor] = tf.convert_to_tensor(arguments[tensor])
        if "filter" in arguments:
            arguments["filter"] = tf.convert_to_tensor(arguments["filter"], dtype_hint=x.dtype)
        found = _way(name, arguments) if _is_known(x, arguments) else None
        if found is None or not _is_refused(name, original, arguments):
            return original(**arguments)
        how, way = found
        if not inside:
            note(f"{NOUNS[name]} {how}", x.dtype.name)
        inside.append(name)  # one that calls another is noted once
        try:
            return way(name, arguments)
        finally:
            inside.pop()

    return called


def _is_known(x: Any, arguments: Arguments) -> bool:
    """Say whether the sizes that the ways go by are known before an operator runs."""
    kernel = arguments.get("filter")
    if x.shape.rank is None or kernel is None:
        return x.shape.rank is not None
    axis = 1 if arguments["data_format"] in CHANNELS_LAST else -1
    return bool(kernel.shape.is_fully_defined() and x.shape[axis] is not None)


def _way(name: str, arguments: Arguments) -> tuple[str, Way] | None:
    """Return what is special about a call, in words, and how else to compute it."""
    dilated = max(arguments.get("dilations") or [1]) > 1
    if arguments["data_format"] in CHANNELS_LAST:
        return "with the channels first", _channels_last
    if "out_backprop" in arguments:
        return ("with dilation", _turned_round) if dilated else None
    if _is_grouped(name, arguments):
        return "in groups", _group_by_group
    if name == "conv3d" and dilated:
        return "with dilation", _spaced_out
    if name in ("max_pool3d", "avg_pool3d"):
        return "in three dimensions", _plane_by_plane
    return None


def _is_grouped(name: str, arguments: Arguments) -> bool:
    if name not in ("conv2d", "conv3d"):
        return False
    axis = 1 if arguments["data_format"] in CHANNELS_LAST else -1
    return bool(arguments["input"].shape[axis] != arguments["filter"].shape[-2])


def _is_refused(name: str, original: Operator, arguments: Arguments) -> bool:
    """Say whether TensorFlow refuses an operator; of each kind one is tried."""
    tensor = next(key for key in TENSORS if key in arguments)
    kernel = tuple(arguments["filter"].shape[:-2]) if "filter" in arguments else ()
    attributes = tuple(
        (key, tuple(value) if isinstance(value, list | tuple) else value)
        for key, value in arguments.items()
        if key in (*BY_AXIS, "data_format")
    )
    grouped = _is_grouped(name, arguments)
    return _refuses(original, tensor, arguments[tensor].dtype, kernel, grouped, attributes)


@functools.cache
def _refuses(
    original: Operator,
    tensor: str,
    dtype: tf.DType,
    kernel: tuple[int, ...],
    grouped: bool,
    attributes: tuple[tuple[str, Any], ...],
) -> bool:
    """Try an operator on zeros in two channels, where its window fits once."""
    arguments = dict(attributes)
    first = arguments["data_format"] in CHANNELS_LAST

    def shape(sizes: Any) -> list[int]:
        return [1, 2, *sizes] if first else [1, *sizes, 2]

    window = arguments.get("ksize") or arguments["dilations"]
    window = window[2:] if first else window[1:-1]
    if kernel:
        window = [(k - 1) * rate + 1 for k, rate in zip(kernel, window, strict=True)]
    try:
        with tf.init_scope():
            if kernel:
                arguments["filter"] = tf.zeros((*kernel, 1 if grouped else 2, 2), dtype)
            if tensor == "out_backprop":
                arguments["input_sizes"], window = shape(window), [1] * len(window)
            original(**{tensor: tf.zeros(shape(window), dtype)}, padding="VALID", **arguments)
    except (tf.errors.OpError, TypeError, ValueError):  # the last two where it lacks the dtype
        return True
    return False


def _call(name: str, arguments: Arguments) -> Any:
    return vars(gen_nn_ops)[name](**arguments)


def _channels_last(name: str, arguments: Arguments) -> Any:
    rank = len(arguments["strides"])
    order, back = [0, *range(2, rank), 1], [0, rank - 1, *range(1, rank - 1)]
    moved = {**arguments, "data_format": CHANNELS_LAST[arguments["data_format"]]}
    for key in TENSORS:
        if key in moved:
            moved[key] = tf.transpose(moved[key], order)
    for key in BY_AXIS:
        if key in moved:
            moved[key] = [moved[key][axis] for axis in order]
    if moved.get("explicit_paddings"):
        before, after = moved["explicit_paddings"][::2], moved["explicit_paddings"][1::2]
        moved["explicit_paddings"] = [n for axis in order for n in (before[axis], after[axis])]
    if "input_sizes" in moved:
        moved["input_sizes"] = tf.gather(moved["input_sizes"], order)
    return tf.transpose(_call(name, moved), back)


def _group_by_group(name: str, arguments: Arguments) -> Any:
    count = arguments["input"].shape[-1] // arguments["filter"].shape[-2]
    groups = (tf.split(arguments[key], count, axis=-1) for key in ("input", "filter"))
    pairs = zip(*groups, strict=True)
    return tf.concat([_call(name, {**arguments, "input": x, "filter": f}) for x, f in pairs], -1)


def _spaced_out(name: str, arguments: Arguments) -> Any:
    del name
    by_axis = {key: arguments[key][1:-1] for key in ("strides", "dilations")}
    return tf.nn.convolution(
        arguments["input"],
        arguments["filter"],
        padding=arguments["padding"],
        data_format=arguments["data_format"],
        **by_axis,
    )


def _turned_round(name: str, arguments: Arguments) -> Any:
    """Compute x[p] = sum of y[o] w[t] over all o, t with o stride - before + t rate = p."""
    del name
    y, kernel = arguments["out_backprop"], arguments["filter"]
    explicit, paddings = arguments.get("explicit_paddings"), []
    for axis in range(1, y.shape.rank - 1):
        stride = arguments["strides"][axis]
        reach = (kernel.shape[axis - 1] - 1) * arguments["dilations"][axis]
        size, steps = arguments["input_sizes"][axis], (tf.shape(y)[axis] - 1) * stride
        before = 0
        if arguments["padding"] == "SAME":
            before = tf.maximum(steps + reach + 1 - size, 0) // 2
        elif explicit:
            before = explicit[2 * axis]
        y = _spread(y, axis, stride)
        paddings.append([reach - before, size - 1 - steps + before])
    spatial = list(range(len(paddings)))
    turned = tf.transpose(
        tf.reverse(kernel, spatial), [*spatial, y.shape.rank - 1, y.shape.rank - 2]
    )
    convolve = gen_nn_ops.conv2d if y.shape.rank == 4 else gen_nn_ops.conv3d
    return convolve(
        tf.pad(y, [[0, 0], *paddings, [0, 0]]),
        turned,
        strides=[1] * y.shape.rank,
        padding="VALID",
        data_format=arguments["data_format"],
        dilations=arguments["dilations"],
    )


def _spread(x: Any, axis: int, stride: int) -> Any:
    """Put stride - 1 zeros between the values along an axis."""
    if stride == 1:
        return x
    shape = tf.unstack(tf.shape(x))
    zeros = [[0, stride - 1 if i == axis + 1 else 0] for i in range(x.shape.rank + 1)]
    x = tf.pad(tf.expand_dims(x, axis + 1), zeros)
    shape[axis] *= stride
    return tf.gather(tf.reshape(x, shape), tf.range(shape[axis] - stride + 1), axis=axis)


def _plane_by_plane(name: str, arguments: Arguments) -> Any:
    pool = gen_nn_ops.max_pool if name == "max_pool3d" else gen_nn_ops.avg_pool
    (_, depth, *plane), (_, step, *steps) = arguments["ksize"], arguments["strides"]
    x, padding = arguments["input"], arguments["padding"]
    n, d, h, w, c = tf.unstack(tf.shape(x))
    x = tf.reshape(x, [n * d, h, w, c])
    x = pool(x, [1, *plane], [1, *steps], padding)
    _, h, w, _ = tf.unstack(tf.shape(x))
    x = pool(tf.reshape(x, [n, d, h * w, c]), [1, depth, 1, 1], [1, step, 1, 1], padding)
    return tf.reshape(x, [n, tf.shape(x)[1], h, w, c])
