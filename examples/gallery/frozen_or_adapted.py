"""
Fine-tuning with frozen and with adapted batch norms
====================================================

A network is trained on clean digits. Then the camera changes: less contrast, and noise. Forty
labelled images of the new kind are there, and a thousand without labels. What should become of the
batch norms while the network is fine-tuned?
"""

import keras
import numpy as np

import keras_bn
from keras_bn.models import digits_cnn

train, test, train_digits, test_digits = digits_cnn.load_data()


def new_camera(images, seed):
    """Reduce the contrast around grey to 0.3, and add noise."""
    noise = np.random.default_rng(seed).normal(0.0, 0.06, images.shape)
    return (0.5 + 0.3 * (images - 0.5) + noise).astype("float32")


unlabelled, new_test = new_camera(train, seed=1), new_camera(test, seed=2)
few, few_digits = unlabelled[:40], train_digits[:40]

# %%
# The network as it comes
# -----------------------

source = digits_cnn.build(seed=0)
source.compile("adam", "sparse_categorical_crossentropy")
source.fit(train, train_digits, batch_size=32, epochs=12, verbose=0)


def accuracy(model, images=new_test):
    """Return the share of the test images that a model classifies rightly."""
    return float(np.mean(model.predict(images, verbose=0).argmax(-1) == test_digits))


print(f"clean images {accuracy(source, test):.3f}, new images {accuracy(source):.3f}")

# %%
# Where it shows
# --------------
#
# No labels are needed to see it. Each row is a batch norm: what it meets now, against what it
# stored.

shift = keras_bn.measure_covariate_shift(source, unlabelled, verbose=0)
figure = shift.plot()
figure

# %%
# Ways to fine-tune
# -----------------
#
# *Frozen* batch norms normalise by their old statistics while the weights around them are trained.
# *Adapted* ones have those of the images without labels, and nothing is trained. *Adapted, frozen*
# is one after the other. *Training* is what Keras does if nobody thinks of it: batch norms
# normalise by each batch of 8, and move their statistics.


def fine_tuned(adapt, frozen, epochs=20):
    """Return a copy of the network, adapted or not, fine-tuned on the few labelled images."""
    model = keras.models.clone_model(source)
    model.set_weights(source.get_weights())
    if adapt:
        keras_bn.adapt_statistics(model, unlabelled, verbose=0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not frozen
    model.compile(keras.optimizers.Adam(3e-4), "sparse_categorical_crossentropy")
    keras.utils.set_random_seed(1)
    model.fit(few, few_digits, batch_size=8, epochs=epochs, verbose=0)
    return model


results = {
    "as it comes": accuracy(source),
    "frozen": accuracy(fine_tuned(adapt=False, frozen=True)),
    "adapted": accuracy(fine_tuned(adapt=True, frozen=True, epochs=0)),
    "adapted, frozen": accuracy(fine_tuned(adapt=True, frozen=True)),
    "training": accuracy(fine_tuned(adapt=False, frozen=False)),
}
for name, value in results.items():
    print(f"{name:16} {value:.3f}")

# %%
# What to take from it
# --------------------
#
# Adapted statistics undo most of the shift before any label is used, because it acts on all pixels
# alike: it is a shift of means and variances. Here they alone come out as well as forty labels do
# behind frozen old ones. Fine-tuning behind adapted ones adds a little, and computes every sample
# as it will be in inference, whatever the batch. Letting the batch norms train does best here: a
# batch of 8 images still has some hundred values a channel in the convolutions. Where it has few,
# see :ref:`the next example <sphx_glr_docs_generated_gallery_small_batches.py>`.
#
# The adapted statistics can be taken back to the last bit:
# ``keras_bn.adapt_statistics(...).undo()``.
