"""Files, whole in and whole out: Keras models, arrays and ONNX."""
