"""The version of this package; what tells it imports neither the layer nor TensorFlow."""

__all__ = ["__version__"]

__version__ = "0.1.0"
