"""What LiteRT, which was TensorFlow Lite, makes of a layer."""

import pytest
import tensorflow as tf
from tensorflow.lite.python import schema_py_generated as schema
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from keras_bn import BatchNormalization


def operators_in_litert(layer, shape):
    function = tf.function(lambda x: tf.nn.relu(layer(x, training=False)))
    concrete = function.get_concrete_function(tf.TensorSpec(shape, tf.float32))
    frozen = convert_variables_to_constants_v2(concrete)
    content = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(content, 0))
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    codes = [code.builtinCode for code in model.operatorCodes]
    return [names[codes[operator.opcodeIndex]] for operator in model.subgraphs[0].operators]


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_every_axis_is_without_transposes(axis):
    layer = BatchNormalization(axis=axis)
    layer.build((1, 4, 8, 9))
    layer.moving_mean.assign_add(tf.ones_like(layer.moving_mean))
    assert operators_in_litert(layer, (1, 4, 8, 9)) == ["MUL", "ADD"]
