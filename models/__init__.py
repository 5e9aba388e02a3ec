"""Small architectures built on `keras_bn.BatchNormalization`, one a file.

Each module has `build(...) -> keras.Model`: seeded, untrained, and nothing runs at import.
"""
