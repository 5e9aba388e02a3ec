import importlib
import pkgutil
import sys

import keras
import numpy as np
import pytest

import keras_bn.models
from keras_bn import BatchNormalization
from keras_bn.models import (
    crnn,
    densenet_block,
    preact_resnet,
    temporal_cnn,
    two_inputs,
    unet,
    volumetric_cnn,
)
from tests.networks import norms
from tests.tolerances import assert_close

# For each model: its shapes in and out for 2 samples, its batch norms, its thousands of parameters.
MODELS = [
    pytest.param(unet, [(2, 16, 24, 3)], [(2, 16, 24, 3)], 12, 30, id="unet"),
    pytest.param(densenet_block, [(2, 32, 32, 3)], [(2, 10)], 14, 22, id="densenet_block"),
    pytest.param(preact_resnet, [(2, 64, 64, 3)], [(2, 10)], 13, 17, id="preact_resnet"),
    pytest.param(temporal_cnn, [(2, 21, 4)], [(2, 21, 5)], 6, 5, id="temporal_cnn"),
    pytest.param(volumetric_cnn, [(2, 8, 16, 16, 1)], [(2, 6)], 3, 18, id="volumetric_cnn"),
    pytest.param(two_inputs, [(2, 6), (2, 16, 16, 3)], [(2, 1), (2, 4)], 5, 3, id="two_inputs"),
    pytest.param(crnn, [(2, 16, 48, 1)], [(2, 12, 27)], 4, 20, id="crnn"),
]
each_model = pytest.mark.parametrize(("module", "inputs", "outputs", "norm_count", "size"), MODELS)


def draw(model, shapes, rng):
    """Draw an input for a model in the structure that it takes."""
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    return keras.tree.pack_sequence_as(model.input, arrays)


def test_every_model_is_tested_and_listed():
    names = {module.name for module in pkgutil.iter_modules(keras_bn.models.__path__)}
    assert names == {param.id for param in MODELS} | {"digits_cnn"}
    assert all(f"- `{name}`: " in keras_bn.models.__doc__ for name in names)


@each_model
def test_model_is_what_its_docstring_says(module, inputs, outputs, norm_count, size, rng):
    model = module.build()
    found = keras.tree.flatten(model(draw(model, inputs, rng), training=False))
    assert [tuple(y.shape) for y in found] == outputs
    assert [type(bn) for bn in norms(model)] == [BatchNormalization] * norm_count
    assert round(model.count_params() / 1000) == size
    assert f"about {size} thousand" in " ".join(module.build.__doc__.split())


@each_model
def test_same_seed_gives_the_same_weights(module, inputs, outputs, norm_count, size):
    a, b, other = (module.build(seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert not all(np.array_equal(x, y) for x, y in zip(a, other, strict=True))


@each_model
def test_one_training_step_is_finite_and_moves_every_batch_norm(
    module, inputs, outputs, norm_count, size, rng
):
    model = module.build()
    x = draw(model, inputs, rng)
    targets = [np.zeros(shape, np.float32) for shape in outputs]
    y = keras.tree.pack_sequence_as(model.output, targets)
    loss = "mse" if len(outputs) == 1 else {name: "mse" for name in y}
    model.compile(keras.optimizers.SGD(0.01), loss, run_eagerly=True)
    before = [bn.moving_mean.numpy() for bn in norms(model)]
    assert np.isfinite(model.train_on_batch(x, y)).all()
    after = [bn.moving_mean.numpy() for bn in norms(model)]
    assert all((a != b).any() for a, b in zip(after, before, strict=True))
    assert all(np.isfinite(w).all() for w in model.get_weights())


def test_unet_takes_any_multiple_of_its_smallest_scale(rng):
    model = unet.build(depth=1, classes=2)
    assert model(draw(model, [(1, 6, 10, 3)], rng)).shape == (1, 6, 10, 2)


def test_temporal_cnn_takes_any_length_and_looks_back_as_far_as_it_says(rng):
    model = temporal_cnn.build(blocks=2, dropout=0.0)
    for variable in model.trainable_variables:
        variable.assign(np.abs(variable.numpy()))  # so that no ReLU stops anything
    model = keras.Model(model.input, model.get_layer("label").input)  # no softmax to saturate
    reach = 2 * (3 - 1) * (2**2 - 1)
    x = np.abs(draw(model, [(1, 20, 4)], rng))
    later = x.copy()
    later[:, 3] += 1.0
    changed = np.abs(model(x) - model(later)).max((0, 2)) > 0
    assert changed.nonzero()[0].min() == 3
    assert changed.nonzero()[0].max() == 3 + reach
    assert_close(model(x[:, :1]), model(x)[:, :1])


def test_volumetric_cnn_takes_open_sizes(rng):
    model = volumetric_cnn.build(shape=(None, None, None))
    assert model(draw(model, [(1, 4, 8, 10, 1)], rng)).shape == (1, 6)


def test_two_inputs_go_by_name():
    model = two_inputs.build()
    found = model({"features": np.ones((2, 6)), "image": np.ones((2, 16, 16, 3))})
    assert {name: y.shape for name, y in found.items()} == {"label": (2, 4), "amount": (2, 1)}
    assert set(model.output_names) == set(found)


@pytest.mark.parametrize("recurrent", ["gru", "lstm"])
def test_crnn_reads_lines_of_any_width(recurrent, rng):
    model = crnn.build(width=None, recurrent=recurrent)
    assert model(draw(model, [(1, 16, 20, 1)], rng)).shape == (1, 5, 27)


def test_models_import_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    for module in pkgutil.iter_modules(keras_bn.models.__path__, "keras_bn.models."):
        importlib.reload(importlib.import_module(module.name))
