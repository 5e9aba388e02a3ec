"""Keras model -> ONNX graph, by way of TensorFlow and tf2onnx: `trace.trace`."""
