#!/usr/bin/env bash
# Keras 3.15.1 on TensorFlow 2.21.0 on a CPU, keras.layers.Resizing (bilinear) given uint8, as images are read.
#
# A good guess: a layer gives the same numbers called, in tf.function and in predict.
# What happens: called by itself, or in a model that is called, it rounds to uint8 again; in tf.function and in predict
# it returns float32, which is the dtype that the model declares for its output. A model that is tried with model(x) thus
# gives other numbers than with predict(x), and images resized before training others than those that the model resizes:
# up to half a unit of 255.
# Seen: [0, 1, 3, 4] to eight pixels is [0, 0, 1, 2, 2, 3, 4, 4] called, [0, 0.25, 0.75, 1.5, 2.5, 3.25, 3.75, 4] in
# tf.function and predict. Given float32 it is the latter everywhere.
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
import tensorflow as tf

exact = np.interp((np.arange(8) + 0.5) / 2 - 0.5, range(4), [0, 1, 3, 4])
for dtype in ("uint8", "float32"):
    x = np.array([0, 1, 3, 4], dtype).reshape(1, 1, 4, 1)
    layer = keras.layers.Resizing(1, 8)
    model = keras.Sequential([keras.Input((1, 4, 1), dtype=dtype), layer])
    assert model.outputs[0].dtype == "float32"
    found = {
        "layer(x)": np.asarray(layer(x)),
        "model(x)": np.asarray(model(x)),
        "tf.function": tf.function(layer)(x).numpy(),
        "predict": model.predict(x, verbose=0),
    }
    for name, y in found.items():
        print(f"{dtype}, {name}: {y.dtype} {y.ravel().tolist()}")
        rounded = dtype == "uint8" and name in ("layer(x)", "model(x)")
        assert y.dtype == ("uint8" if rounded else "float32")
        np.testing.assert_allclose(y.ravel(), np.round(exact) if rounded else exact, atol=1e-6)
EOF
