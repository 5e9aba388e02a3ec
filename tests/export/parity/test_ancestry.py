"""The way back from a tensor to those that it is computed from."""

import pytest

from keras_bn.export.parity.ancestry import nearest

BEFORE = {"y": {"a", "b"}, "a": {"x"}, "b": {"a", "c"}, "c": {"x"}}


@pytest.mark.parametrize(
    ("values", "wanted", "found"),
    [
        pytest.param(["y"], {"y", "a"}, {"y"}, id="a wanted one itself"),
        pytest.param(["y"], {"a", "x"}, {"a", "x"}, id="behind one the search ends, beside it not"),
        pytest.param(["b"], {"x"}, {"x"}, id="two ways to one"),
        pytest.param(["y"], {"z"}, set(), id="none"),
        pytest.param([], {"x"}, set(), id="no start"),
    ],
)
def test_nearest(values, wanted, found):
    assert nearest(values, lambda name: BEFORE.get(name, ()), wanted) == found
