import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.export.stages.constants.evaluate import evaluate_constants
from keras_bn.export.stages.tracing.stand_ins import stand_ins
from keras_bn.export.stages.tracing.trace import trace
from tests.export.graphs import operators
from tests.networks import bits

layers = keras.layers


def kinds(model):
    """Return the operators of a traced model, but for Identity."""
    return [kind for kind in operators(evaluate_constants(trace(model))) if kind != "Identity"]


def on(shape, layer):
    x = keras.Input(shape, name="x")
    return keras.Model(x, layer(x))


@pytest.mark.parametrize(
    ("layer", "operator"), [(layers.LSTM, "LSTM"), (layers.GRU, "GRU"), (layers.SimpleRNN, "RNN")]
)
def test_recurrent_layer_is_one_operator(layer, operator):
    assert kinds(on((6, 5), layer(4))) == ["Transpose", operator, "Squeeze"]


def test_reverse_is_a_slice():
    assert kinds(on((6, 5), layers.GRU(4, go_backwards=True)))[0] == "Slice"


def test_masked_and_unusual_recurrent_layers_stay_loops():
    tokens = keras.Input((6,), dtype="int32", name="x")
    masked = keras.Model(tokens, layers.LSTM(3)(layers.Embedding(9, 2, mask_zero=True)(tokens)))
    for model in (masked, on((6, 5), layers.LSTM(4, activation="elu"))):
        found = kinds(model)
        assert "Loop" in found
        assert "LSTM" not in found


def test_dense_on_sequences_is_one_matmul():
    assert kinds(on((None, 3, 5), layers.Dense(4))) == ["MatMul", "Add"]


def test_embedding_is_one_gather():
    tokens = keras.Input((6,), dtype="int32", name="x")
    assert kinds(keras.Model(tokens, layers.Embedding(9, 2)(tokens))) == ["Gather"]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_up_sampling_is_one_resize_for_any_size(interpolation):
    found = kinds(on((None, None, 3), layers.UpSampling2D((2, 3), interpolation=interpolation)))
    assert found == ["Transpose", "Resize", "Transpose"]


@pytest.mark.parametrize(
    ("layer", "momentum"),
    [
        (layers.BatchNormalization(momentum=0.75), 0.75),
        (BatchNormalization(momentum=0.75), 0.75),
        (BatchNormalization(momentum=None), None),  # an average of all batches: ONNX has none
    ],
)
def test_batch_norm_tells_epsilon_and_momentum(layer, momentum):
    model = trace(on((6, 5), layer))
    (node,) = (node for node in model.graph if node.op_type == "BatchNormalization")
    assert node.attributes.get_float("epsilon") == pytest.approx(1e-3)
    assert node.attributes.get_float("momentum", None) == momentum


def test_time_distributed_is_not_unrolled():
    model = on((7, 6, 6, 2), layers.TimeDistributed(layers.Conv2D(3, 2)))
    assert kinds(model).count("Conv") == 1


def test_time_distributed_over_foreign_code_stays_as_it_is():
    class BatchMean(layers.Layer):  # looks at the whole batch
        def compute_output_shape(self, shape):
            return shape

        def call(self, x):
            return x - keras.ops.mean(x, 0, keepdims=True)

    assert "Reshape" not in kinds(on((3, 4), layers.TimeDistributed(BatchMean())))


def test_time_distributed_over_batch_norm_is_one():
    assert "Reshape" in kinds(on((3, 4), layers.TimeDistributed(BatchNormalization())))


def test_time_distributed_over_a_subclass_of_batch_norm_stays_as_it_is():
    class Centred(BatchNormalization):  # looks at the whole batch, though its `call` is inherited
        def activated(self, y):
            return y - keras.ops.mean(y, 0, keepdims=True)

    assert "Reshape" not in kinds(on((3, 4), layers.TimeDistributed(Centred())))


def test_overridden_call_is_traced_as_it_is():
    class Doubled(BatchNormalization):
        def call(self, inputs, training=None, mask=None, sample_weight=None):
            return 2.0 * super().call(inputs, training, mask, sample_weight)

    assert "BatchNormalization" not in kinds(on((5,), Doubled()))


def test_layers_are_themselves_again_after_an_error():
    model = on((6, 5), keras.Sequential([layers.LSTM(4), BatchNormalization(), layers.Dense(2)]))
    before = [dict(vars(layer)) for layer in model._flatten_layers()], bits(model)
    with pytest.raises(KeyboardInterrupt), stand_ins(model):
        raise KeyboardInterrupt
    after = [dict(vars(layer)) for layer in model._flatten_layers()], bits(model)
    assert [set(found) for found in after[0]] == [set(found) for found in before[0]]
    assert after[1] == before[1]


def test_other_threads_see_the_layer_itself(rng):
    model = on((5,), BatchNormalization())
    x = rng.normal(size=(3, 5)).astype(np.float32)
    expected, found = model(x).numpy(), []

    def call():
        found.append(tf.function(model)(x).numpy())

    with stand_ins(model):
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(found[0], expected)


def test_model_still_trains_after_a_trace(rng):
    model = on((5,), keras.Sequential([layers.Dense(3), BatchNormalization()]))
    model.compile("sgd", "mse")
    trace(model)
    x = rng.normal(size=(8, 5)).astype(np.float32)
    assert np.isfinite(model.train_on_batch(x, x[:, :3]))
    trace(model)
