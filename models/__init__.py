"""Small architectures built on `keras_bn.BatchNormalization`, one a file.

Each module has `build(...) -> keras.Model`: seeded, untrained, and nothing runs at import.

- `digits_cnn`: convolutions, one depthwise, and a Dense layer, for 8 x 8 digits.
- `unet`: encoder and decoder with skip connections; a class for each pixel.
- `densenet_block`: dense blocks, whose batch norms read a concatenation, and transitions.
- `preact_resnet`: residual network whose batch norms come before the convolutions.
- `temporal_cnn`: dilated causal 1-D convolutions over series of any length.
- `volumetric_cnn`: 3-D convolutions over video clips or volumes.
- `two_inputs`: an image and a feature vector in, a class and a number out, by name.
- `crnn`: convolutions, then a bidirectional recurrent layer; a character for each step.
"""
