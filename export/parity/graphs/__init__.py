"""ONNX files held against ONNX files, with float64 by the graph of the first; needs no Keras."""
