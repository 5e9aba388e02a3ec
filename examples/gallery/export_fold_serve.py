"""
Export, fold, serve
===================

From a trained network to a file that ONNX Runtime serves without Keras, with the file in 8 bits
beside it, and the proof for both.
"""

import logging
import tempfile
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from keras_bn.export import check_parity, export_onnx
from keras_bn.models import digits_cnn

folder = Path(tempfile.mkdtemp())
train, test, train_digits, test_digits = digits_cnn.load_data()
model = digits_cnn.build(seed=0)
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(train, train_digits, batch_size=32, epochs=10, verbose=0)
expected = model.predict(test, verbose=0)

# %%
# Export
# ------
#
# The file appears only if ONNX Runtime computes what Keras does, both held against the same network
# in float64.

report = export_onnx(model, folder / "digits.onnx", inputs=test)
for fold in report.fold.folds:
    print(f"{fold.operator:18} of {fold.layer:13} went into {fold.target}")
print("left:", report.fold.refusals)

# %%

output = report.parity.outputs[0]
print(f"largest error of Keras {output.keras.max:.1e}, of ONNX Runtime {output.onnx.max:.1e}")
print(f"allowed {output.tolerance:.1e}, passed: {report.parity.passed}")

# %%
# In 8 bits
# ---------
#
# Each convolution is one operator now, so that quantising gives each of its channels a scale. Some
# hundred training images tell the range of every tensor.


class Samples(CalibrationDataReader):
    """Training images in batches of 16."""

    def __init__(self, images):
        self.batches = iter([{"image": images[i : i + 16]} for i in range(0, len(images), 16)])

    def get_next(self):
        """Return the next batch, or None."""
        return next(self.batches, None)


logging.getLogger().setLevel(logging.ERROR)
quantize_static(
    folder / "digits.onnx",
    folder / "int8.onnx",
    Samples(train[:400]),
    quant_format=QuantFormat.QDQ,
    per_channel=True,
    reduce_range=True,
)
in_8_bits = check_parity(model, folder / "int8.onnx", inputs=test, explain=False)
print(f"signal to noise {in_8_bits.outputs[0].signal_to_noise:.0f} dB, passed: {in_8_bits.passed}")

# %%
# Serve
# -----
#
# This part needs ONNX Runtime and NumPy alone. The milliseconds are those of the machine that built
# this page, while it did other things; run it on yours.


def serve(file):
    """Return a session's answers and the median time of one image, in milliseconds."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (answers,) = session.run(["digit"], {"image": test})
    times = []
    for image in test[:200]:
        start = time.perf_counter()
        session.run(["digit"], {"image": image[np.newaxis]})
        times.append(1e3 * (time.perf_counter() - start))
    return answers, float(np.median(times))


figure, axes = plt.subplots(figsize=(6, 2.5), layout="constrained")
print("file             bytes  accuracy  ms an image")
for name in ("digits.onnx", "int8.onnx"):
    path = folder / name
    answers, milliseconds = serve(path)
    right = np.mean(answers.argmax(1) == test_digits)
    print(f"{name:12} {path.stat().st_size:9,}  {right:8.4f}  {milliseconds:11.3f}")
    difference = np.abs(answers - expected).max(axis=1)
    axes.hist(np.log10(np.maximum(difference, 1e-9)), bins=40, range=(-9, 0), label=name)
axes.set_xlabel("largest difference of an image's probabilities from Keras, power of ten")
axes.set_ylabel("test images")
axes.legend(frameon=False)
figure
