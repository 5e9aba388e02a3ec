"""`python -m keras_bn.export.parity MODEL.keras MODEL.onnx` is `keras-bn check`."""

from keras_bn.export.__main__ import main

main(only_check=True)
