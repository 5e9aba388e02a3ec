#!/usr/bin/env bash
# Keras 3.15.1 on TensorFlow 2.21.0 on a CPU: keras.ops.add, and with it the + of symbolic tensors, the layer Add and the
# biases of convolutions with data_format="channels_first".
#
# A good guess: add broadcasts as NumPy's does, and a bias is added along the filters, wherever their axis is.
# What happens: a second operand with one axis longer than 1, as long as axis 1 or the last of the first operand, is
# squeezed and handed to bias_add: along the last axis if that is as long, else along axis 1, wherever it lay. So a column
# is added as a row to a square matrix, in a model only where the batch is of one sample, and a bias along the width to a
# map that is as wide as there are filters. Subtraction and the other order of operands are right. Sizes that all differ
# hide it.
# Seen: zeros (2, 2) plus [[1], [2]] is [[1, 2], [1, 2]]. Convolutions of kernel 0 with five filters have their biases
# along axis 1 where the output is eight wide, along the last where it is five wide, in one to three dimensions.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check keras==3.15.1 tensorflow==2.21.0 numpy==2.4.6
cd "$folder"
export KERAS_BACKEND=tensorflow KERAS_HOME="$folder" CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL=3
bin/python -W ignore - <<'EOF'
import keras
import numpy as np

zeros, column = np.zeros((2, 2), np.float32), np.float32([[1], [2]])
row = np.broadcast_to(column.T, (2, 2))
first, second = keras.Input((2, 2)), keras.Input((2, 1))
model = keras.Model([first, second], first + second)
found = {
    "keras.ops.add": keras.ops.add(zeros, column),
    "the layer Add": keras.layers.Add()([zeros, column]),
    "+ in a model, a batch of one": model([zeros[None], column[None]])[0],
    "+ in a model, a batch of two": model([np.stack([zeros] * 2), np.stack([column] * 2)])[0],
    "the other order": keras.ops.add(column, zeros),
    "subtract": -keras.ops.subtract(zeros, column),
    "three columns": keras.ops.add(np.zeros((2, 3), np.float32), column),
}
for name, y in found.items():
    print(f"zeros and [[1], [2]], {name}: {np.asarray(y).tolist()}")
    right = name not in ("keras.ops.add", "the layer Add", "+ in a model, a batch of one")
    np.testing.assert_array_equal(y, np.broadcast_to(column, y.shape) if right else row)

BIAS = np.arange(5, dtype=np.float32)


def convolve(name: str, data_format: str, shape: tuple[int, ...]) -> np.ndarray:
    layer = getattr(keras.layers, name)(5, 3, data_format=data_format, kernel_initializer="zeros")
    layer.build((1, *shape))
    layer.bias.assign(BIAS)
    return np.asarray(layer(np.ones((1, *shape), np.float32)))


def find_bias(y: np.ndarray) -> list[int]:
    """The axes along which y is the bias."""
    moved = {axis: np.moveaxis(y, axis, -1) for axis in range(y.ndim) if y.shape[axis] == len(BIAS)}
    return [axis for axis, z in moved.items() if np.array_equal(z, np.broadcast_to(BIAS, z.shape))]


for name in ("Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"):
    rank = int(name[4])
    for width in (10, 7) if name.endswith("D") else (10, 3):  # outputs 8 and 5 wide, transposed ones 12 and 5
        sizes = (8, 9, width)[-rank:]
        first = convolve(name, "channels_first", (2, *sizes))
        last = convolve(name, "channels_last", (*sizes, 2))
        print(f"{name}: {first.shape}, bias along axis {find_bias(first)}; {last.shape}, along {find_bias(last)}")
        assert find_bias(first) == ([rank + 1] if width < 10 else [1])
        assert find_bias(last) == [rank + 1]
EOF
