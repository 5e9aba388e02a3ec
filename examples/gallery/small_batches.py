"""
Small batches cured
===================

Batches of 4, momentum 0.99, 150 steps: the loss falls, and the trained network guesses. Its weights
are good. The statistics that its batch norms stored are not.
"""

import numpy as np

import keras_bn
from keras_bn.models import digits_cnn

train, test, train_digits, test_digits = digits_cnn.load_data()
chosen = np.random.default_rng(0).permutation(len(train))[:600]
x, y = train[chosen], train_digits[chosen]

model = digits_cnn.build(seed=0, momentum=0.99)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(x, y, batch_size=4, verbose=0)


def accuracy():
    """Return the accuracy on the test images."""
    return float(np.mean(model.predict(test, verbose=0).argmax(-1) == test_digits))


print(f"while training {history.history['accuracy'][-1]:.3f}, on test images {accuracy():.3f}")

# %%
# Why
# ---
#
# The same data run through the model twice: normalised by the batch, as in training, and by what is
# stored, as in inference.

gap = keras_bn.train_inference_gap(model, (x, y), batch_size=4, verbose=0)
print(gap)

# %%
# How far the batch norms are off
# -------------------------------
#
# Estimating the statistics of the population from the training images changes no weight (Algorithm
# 2 of Ioffe & Szegedy). The report can be drawn: how far each layer's means and variances moved.

report = keras_bn.estimate_population_statistics(model, x, batch_size=4, verbose=0)
figure = report.plot()
figure

# %%
# The cure
# --------

cured = accuracy()
print(f"with estimated statistics {cured:.3f}")

# %%
# What is left of the diagnosis, now that the momentum's fault is gone:

for diagnosis in keras_bn.train_inference_gap(model, (x, y), batch_size=4, verbose=0).diagnoses:
    print(diagnosis.cause)

# %%
# It can be undone, to the last bit:

report.undo()
print(f"as before {accuracy():.3f}")

# %%
# Not to need a cure
# ------------------
#
# ``momentum=None`` averages all batches equally from the first on, so that a short training has
# statistics that fit too. They still count the first steps, whose weights are long gone, so the
# estimate behind training is the better one where there are data for it.

steady = digits_cnn.build(seed=0, momentum=None)
steady.compile("adam", "sparse_categorical_crossentropy")
steady.fit(x, y, batch_size=4, verbose=0)
right = steady.predict(test, verbose=0).argmax(-1) == test_digits
print(f"momentum=None {np.mean(right):.3f}")
