"""ONNX Runtime against Keras, both measured against Keras in float64."""
