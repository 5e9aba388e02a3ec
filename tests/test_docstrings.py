import doctest
import importlib
import pkgutil

import pytest

import keras_bn
import keras_bn.export
import keras_bn.models

MODULES = [
    module.name
    for package in (keras_bn, keras_bn.export, keras_bn.models)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    # `_kernel.so` is a library for TensorFlow to load, and no module.
    if not module.name.endswith(("__main__", "_kernel"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_module_says_what_it_is_and_what_it_offers(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert all(hasattr(module, public) for public in getattr(module, "__all__", []))
