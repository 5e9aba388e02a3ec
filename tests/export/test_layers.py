"""Every kind of Keras layer, exported and proven."""

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from keras_bn.export import export_onnx

pytestmark = pytest.mark.onednn

layers = keras.layers

IMAGE, ROWS = (8, 9, 4), (6, 5)

UNARY = {
    "Activation gelu": (ROWS, layers.Activation, ("gelu",)),
    **{
        f"Activation {name}": (ROWS, layers.Activation, (name,))
        for name in (
            "celu elu exponential hard_shrink hard_sigmoid hard_swish hard_tanh leaky_relu "
            "log_sigmoid log_softmax mish relu relu6 selu silu soft_shrink softmax softplus "
            "softsign sparse_plus squareplus tanh tanh_shrink"
        ).split()
    },
    "Activation glu": ((6, 4), layers.Activation, ("glu",)),
    "AveragePooling1D": (ROWS, layers.AveragePooling1D, (2,)),
    "AveragePooling2D same": (IMAGE, layers.AveragePooling2D, (3, 2, "same")),
    "AveragePooling3D": ((4, 4, 4, 2), layers.AveragePooling3D, (2,)),
    "BatchNormalization axis 2": (IMAGE, layers.BatchNormalization, (2,)),
    "CenterCrop": (IMAGE, layers.CenterCrop, (4, 4)),
    "Conv1D grouped": ((8, 4), layers.Conv1D, (6, 3), {"groups": 2}),
    "Conv1D causal dilated": (
        (None, 4),
        layers.Conv1D,
        (6, 3),
        {"padding": "causal", "dilation_rate": 2},
    ),
    "Conv2D": (IMAGE, layers.Conv2D, (6, 3)),
    "Conv2D channels first": ((4, 8, 9), layers.Conv2D, (5, 3), {"data_format": "channels_first"}),
    "Conv2D strided same": (
        (None, None, 3),
        layers.Conv2D,
        (6, 3),
        {"strides": 2, "padding": "same"},
    ),
    "Conv2D dilated same": (IMAGE, layers.Conv2D, (6, 3), {"padding": "same", "dilation_rate": 2}),
    "Conv2D grouped": (IMAGE, layers.Conv2D, (6, 3), {"groups": 2}),
    "Conv3D": ((5, 5, 5, 2), layers.Conv3D, (3, 2)),
    "Conv1DTranspose": ((8, 4), layers.Conv1DTranspose, (6, 3), {"strides": 2}),
    "Conv2DTranspose": (IMAGE, layers.Conv2DTranspose, (6, 3, 2, "same")),
    "Conv2DTranspose dynamic": ((None, None, 4), layers.Conv2DTranspose, (6, 3, 2, "same")),
    "Conv2DTranspose output padding": (
        IMAGE,
        layers.Conv2DTranspose,
        (6, 3, 2, "same"),
        {"output_padding": 1},
    ),
    "Conv3DTranspose": ((4, 4, 4, 2), layers.Conv3DTranspose, (3, 3, 2)),
    "ConvLSTM2D": ((3, 6, 6, 2), layers.ConvLSTM2D, (3, 2)),
    "Cropping2D": (IMAGE, layers.Cropping2D, (1,)),
    "Dense on rank 4": (IMAGE, layers.Dense, (5,)),
    "DepthwiseConv1D": ((8, 4), layers.DepthwiseConv1D, (3,)),
    "DepthwiseConv2D dilated": (
        IMAGE,
        layers.DepthwiseConv2D,
        (3,),
        {"dilation_rate": 2, "depth_multiplier": 2},
    ),
    "Discretization": (ROWS, layers.Discretization, ([-0.5, 0.0, 0.5],)),
    "EinsumDense": (
        ROWS,
        layers.EinsumDense,
        ("abc,cd->abd",),
        {"output_shape": (None, 5), "bias_axes": "d"},
    ),
    "Flatten": (IMAGE, layers.Flatten, ()),
    "GlobalMaxPooling2D": (IMAGE, layers.GlobalMaxPooling2D, (), {"keepdims": True}),
    "GroupNormalization": (IMAGE, layers.GroupNormalization, (2,)),
    "GRU": (ROWS, layers.GRU, (4,)),
    "GRU before reset, dynamic": (
        (None, 5),
        layers.GRU,
        (4,),
        {"reset_after": False, "return_sequences": True},
    ),
    "LayerNormalization": (ROWS, layers.LayerNormalization, ()),
    "LSTM": (ROWS, layers.LSTM, (4,)),
    "LSTM backwards": (ROWS, layers.LSTM, (4,), {"go_backwards": True, "return_sequences": True}),
    "LSTM hard sigmoid": (
        ROWS,
        layers.LSTM,
        (4,),
        {"recurrent_activation": "hard_sigmoid", "activation": "relu", "use_bias": False},
    ),
    "LSTM elu, a loop": (ROWS, layers.LSTM, (4,), {"activation": "elu"}),
    "MaxPooling1D": ((8, 4), layers.MaxPooling1D, (2,)),
    "MaxPooling2D same": (IMAGE, layers.MaxPooling2D, (3, 2, "same")),
    "Permute": (IMAGE, layers.Permute, ((3, 1, 2),)),
    "PReLU": (IMAGE, layers.PReLU, (), {"shared_axes": [1, 2]}),
    "RandomFlip": (IMAGE, layers.RandomFlip, ()),
    "RepeatVector": ((5,), layers.RepeatVector, (3,)),
    "Rescaling": (IMAGE, layers.Rescaling, (1 / 255.0, 0.5)),
    "Reshape": (ROWS, layers.Reshape, ((3, -1),)),
    "Resizing bilinear": (IMAGE, layers.Resizing, (6, 7)),
    "Resizing nearest": (
        IMAGE,
        layers.Resizing,
        (13, 5),
        {"interpolation": "nearest"},
    ),
    "RMSNormalization": (ROWS, layers.RMSNormalization, ()),
    "SeparableConv1D": ((8, 4), layers.SeparableConv1D, (6, 3)),
    "SeparableConv2D": (IMAGE, layers.SeparableConv2D, (6, 3, 2, "same")),
    "SimpleRNN": (ROWS, layers.SimpleRNN, (4,)),
    "SpatialDropout2D": (IMAGE, layers.SpatialDropout2D, (0.5,)),
    "UnitNormalization": (ROWS, layers.UnitNormalization, ()),
    "UpSampling1D": (ROWS, layers.UpSampling1D, (2,)),
    "UpSampling2D bilinear": (IMAGE, layers.UpSampling2D, ((2, 3), None, "bilinear")),
    "UpSampling2D bilinear, size unknown": (
        (None, None, 4),
        layers.UpSampling2D,
        ((2, 3), None, "bilinear"),
    ),
    "UpSampling2D nearest": ((None, None, 4), layers.UpSampling2D, ((2, 3),)),
    "UpSampling3D": ((4, 3, 2, 2), layers.UpSampling3D, (2,)),
    "ZeroPadding2D": (IMAGE, layers.ZeroPadding2D, (((1, 2), (3, 4)),)),
}

WRAPPED = {
    "Bidirectional GRU": (
        ROWS,
        lambda: layers.Bidirectional(layers.GRU(4, return_sequences=True), merge_mode="sum"),
    ),
    "Bidirectional LSTM": (
        ROWS,
        lambda: layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
    ),
    "RNN of two cells": (ROWS, lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)])),
    "SpectralNormalization": (
        IMAGE,
        lambda: layers.SpectralNormalization(layers.Conv2D(3, 2)),
    ),
    "TimeDistributed Conv2D": ((3, *IMAGE), lambda: layers.TimeDistributed(layers.Conv2D(3, 2))),
    "TimeDistributed dynamic": (
        (None, *IMAGE),
        lambda: layers.TimeDistributed(layers.Conv2D(3, 2)),
    ),
    "TimeDistributed LSTM": ((3, *ROWS), lambda: layers.TimeDistributed(layers.LSTM(4))),
    "Lambda": (
        ROWS,
        lambda: layers.Lambda(lambda x: tf.nn.relu(x) + tf.reduce_sum(x, -1)[..., None]),
    ),
}


def prove(model, tmp_path, **options):
    report = export_onnx(model, tmp_path / "model.onnx", **options)
    assert report.parity.passed
    return report


@pytest.mark.parametrize("opset", [13, pytest.param(15, marks=pytest.mark.slow), 18])
@pytest.mark.parametrize("case", [pytest.param(v, id=k) for k, v in UNARY.items()])
def test_layer(case, opset, randomised, tmp_path):
    shape, layer, arguments, *options = case
    x = keras.Input(shape, name="x")
    model = keras.Model(x, layer(*arguments, **(options[0] if options else {}))(x))
    prove(randomised(model), tmp_path, opset=opset)


@pytest.mark.parametrize("case", [pytest.param(v, id=k) for k, v in WRAPPED.items()])
def test_wrapped_layer(case, randomised, tmp_path):
    shape, make = case
    x = keras.Input(shape, name="x")
    prove(randomised(keras.Model(x, make()(x))), tmp_path)


@pytest.mark.parametrize("length", [6, None])
@pytest.mark.parametrize("causal", [False, True])
def test_multi_head_attention(length, causal, randomised, tmp_path):
    x = keras.Input((length, 8), name="x")
    y = layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=causal)
    prove(randomised(keras.Model(x, y)), tmp_path)


def test_attention_layers(randomised, tmp_path):
    x = keras.Input((6, 8), name="x")
    y = layers.GroupQueryAttention(4, 4, 2)(x, layers.Attention()([x, x]))
    prove(randomised(keras.Model(x, y)), tmp_path)


@pytest.mark.parametrize("layer", [layers.LSTM, layers.GRU])
def test_embedding_with_a_mask(layer, randomised, tmp_path):
    x = keras.Input((6,), dtype="int32", name="x")
    y = layer(4, return_sequences=True)(layers.Embedding(10, 3, mask_zero=True)(x))
    prove(randomised(keras.Model(x, y)), tmp_path)


def test_states_of_a_recurrent_layer(randomised, tmp_path):
    x = keras.Input(ROWS, name="x")
    y, h, c = layers.LSTM(4, return_state=True, return_sequences=True)(x)
    prove(
        randomised(keras.Model(x, [layers.LSTM(4)(y, initial_state=[h, c]), h, c])),
        tmp_path,
    )


def test_merging_layers(randomised, tmp_path):
    x, z = keras.Input(IMAGE, name="x"), keras.Input(IMAGE, name="z")
    merges = (layers.Add, layers.Average, layers.Maximum, layers.Multiply, layers.Subtract)
    prove(keras.Model([x, z], layers.Concatenate()([m()([x, z]) for m in merges])), tmp_path)


def test_where_ignores_nan_in_the_other_branch(tmp_path):
    x = keras.Input((4,), name="x")
    y = keras.ops.where(x > 0.0, keras.ops.log(x), 0.0)
    prove(keras.Model(x, y), tmp_path, inputs=np.array([[-1.0, 0.0, 1.0, 2.0]], np.float32))


def test_argmax_takes_no_negative_zero_for_zero(tmp_path):
    x = keras.Input((4,), name="x")
    rows = np.array([[-1.0, -0.0, 0.0, -2.0], [3.0, -np.inf, 3.0, 0.0]], np.float32)
    model = keras.Model(x, keras.ops.argmax(x, -1))
    assert model(rows).numpy().tolist() == [2, 0]
    prove(model, tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    assert session.run(None, {"x": rows})[0].tolist() == [2, 0]


def test_negative_indices_of_an_embedding(randomised, tmp_path):
    x = keras.Input((3,), dtype="int32", name="x")
    model = randomised(keras.Model(x, layers.Embedding(5, 2)(x)))
    prove(model, tmp_path, inputs=np.array([[0, -1, 4], [-5, 2, 3]]))


def test_adapted_normalization(rng, tmp_path):
    layer = layers.Normalization()
    layer.adapt(rng.normal(3.0, 2.0, (50, 5)))
    x = keras.Input(ROWS, name="x")
    prove(keras.Model(x, layer(x)), tmp_path)


@pytest.mark.parametrize("size", [3, 5, 7, 16, 31])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_resizing_to_a_size_that_is_no_multiple(size, interpolation, tmp_path):
    x = keras.Input((12, 10, 1), name="x")
    layer = layers.Resizing(size, size + 4, interpolation=interpolation)
    samples = np.arange(240, dtype=np.float32).reshape(2, 12, 10, 1)
    report = prove(keras.Model(x, layer(x)), tmp_path, inputs=samples)
    assert interpolation == "bilinear" or report.parity.outputs[0].onnx.max == 0.0
