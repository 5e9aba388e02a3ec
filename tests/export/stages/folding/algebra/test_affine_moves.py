"""What moves elements moves their maps: each law against the operator itself, both ways."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_bn.export.stages.folding.algebra import affine
from keras_bn.export.stages.folding.algebra import rearranging as moving
from keras_bn.export.stages.folding.reason import NotExactError, Reason
from tests.export.stages.folding.algebra.affine_maps import (
    applied,
    maps,
    of,
    refused,
    rngs,
    run_operator,
    same,
    shapes,
)

data = st.data()


# What moves elements


@given(data, shapes())
def test_transposed_both_ways(data, shape):
    a, x = data.draw(maps(shape)), data.draw(rngs()).normal(size=shape)
    perm = data.draw(st.permutations(range(len(shape))))
    after = moving.transposed(a, perm)
    expected = run_operator("Transpose", applied(a, x), perm=perm)
    np.testing.assert_array_equal(applied(after, run_operator("Transpose", x, perm=perm)), expected)
    same(moving.transposed(after, np.argsort(perm)), a)


@st.composite
def regrouped(draw):
    """Draw two shapes with the same number of elements, and what is known of their sizes."""
    atoms = draw(st.lists(st.integers(1, 3), max_size=5))

    def grouped():
        cuts = draw(st.lists(st.integers(0, len(atoms)), max_size=3).map(sorted))
        ends = [0, *cuts, len(atoms)]
        return [math.prod(atoms[i:j]) for i, j in itertools.pairwise(ends)]

    before, after = grouped(), grouped()
    names = {size: f"n{size}" for size in {*before, *after} if draw(st.integers(0, 3)) == 0}

    def hidden(sizes):
        return [draw(st.sampled_from([names.get(n, n)] * 4 + [None])) for n in sizes]

    return before, after, hidden(before), hidden(after)


@given(data, regrouped())
def test_reshaped_both_ways(data, shapes):
    before, after, known_before, known_after = shapes
    a, x = data.draw(maps(before)), data.draw(rngs()).normal(size=before)
    expected = applied(a, x).reshape(after)
    moved = moving.reshaped(a, before, after)
    np.testing.assert_array_equal(applied(moved, x.reshape(after)), expected)
    same(moving.reshaped(moved, after, before), a)
    try:
        unsure = moving.reshaped(a, known_before, known_after)
    except NotExactError as e:
        assert e.reason is Reason.SHAPE_UNKNOWN  # noqa: PT017 (either is right)
    else:
        same(unsure, moved)


@pytest.mark.parametrize(
    ("before", "after", "shape"),
    [
        pytest.param(["N", None, None, 3], [None, 3], (1, 3), id="pixels"),
        pytest.param(["N", None, None, 3], ["N", None, 3], (1, 1, 3), id="rows"),
        pytest.param([None, 3, 1, 1], [None, 3], (1, 3), id="squeeze"),
        pytest.param([None, 3], [None, 1, 1, 3], (1, 1, 1, 3), id="unsqueeze"),
        pytest.param([None, 2, 2, 3], [None, 12], (1, 12), id="flatten"),
        pytest.param(["N", 3, "H", "W"], ["N", 3, None], (1, 3, 1), id="groups"),
        pytest.param(["N", 3, "H", "W"], [None, 3, "H", "W"], (1, 3, 1, 1), id="new batch"),
        pytest.param([6, None], [2, 3, None], (2, 3, 1), id="heads"),
    ],
)
def test_reshaped_where_some_sizes_are_unknown(before, after, shape):
    axis = max(i for i, size in enumerate(before) if size in (3, 6))
    vector = of(np.arange(1.0, before[axis] + 1))
    moved = moving.reshaped(affine.along(vector, axis, len(before)), before, after)
    widths = moved.scale.shape
    assert widths == shape
    repeats = math.prod(shape) // vector.scale.size
    np.testing.assert_array_equal(moved.scale.ravel(), np.tile(vector.scale, repeats))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([None, None, 3], [None, None], id="unknown"),
        pytest.param(["N", 3], [3, "N"], id="rotated"),
        pytest.param([None, None, 3], [None, 9], id="three times an unknown"),
        pytest.param([2, 3], [5], id="another number of elements"),
        pytest.param(["N", "M", 3], ["M", "N", 5], id="names in another order"),
    ],
)
def test_reshaped_refuses_what_might_go_elsewhere(before, after):
    a = affine.along(of([1.0, 2.0, 3.0]), len(before) - 1, len(before))
    with refused(Reason.SHAPE_UNKNOWN, "reshape of"):
        moving.reshaped(a, before, after)
    uniform = affine.identity(len(before)).after(of(2.0, 1.0, (1,) * len(before)))
    same(moving.reshaped(uniform, before, after), of(2.0, 1.0, (1,) * len(after)))


def test_unknown_sizes_are_not_the_same_size():
    a = affine.along(of([1.0, 2.0]), 1, 3)
    with refused(Reason.SHAPE_UNKNOWN):
        moving.reshaped(a, [None, 2, None], [None, None, None])


def test_reshaped_without_elements():
    assert moving.reshaped(affine.identity(2), [0, 4], [4, 0]).is_identity


@given(data, shapes())
def test_taken_is_what_a_slice_takes(data, shape):
    a, x = data.draw(maps(shape)), data.draw(rngs()).normal(size=shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    size = shape[axis]
    start, step = data.draw(st.integers(0, size - 1)), data.draw(st.sampled_from([1, 2, -1, -2]))
    end = size if step > 0 else -size - 1
    indices = np.arange(size)[start:end:step]
    taken = moving.taken(a, axis, indices)
    window = [np.array([n]) for n in (start, end, axis, step)]
    y, expected = (run_operator("Slice", array, *window) for array in (x, applied(a, x)))
    np.testing.assert_array_equal(applied(taken, y), expected)
    back = moving.placed(taken, axis, indices, size)
    same(moving.taken(back, axis, indices), taken)
    dropped = np.setdiff1d(np.arange(size), indices)
    assert not dropped.size or moving.taken(back, axis, dropped).is_identity


@given(data, shapes(1, 3))
def test_taken_is_what_a_gather_takes(data, shape):
    a, x = data.draw(maps(shape)), data.draw(rngs()).normal(size=shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    some = st.lists(st.integers(-shape[axis], shape[axis] - 1), min_size=1, max_size=6)
    indices = np.array(data.draw(some))
    taken = moving.taken(a, axis, indices)
    expected = run_operator("Gather", applied(a, x), indices, axis=axis)
    np.testing.assert_array_equal(
        applied(taken, run_operator("Gather", x, indices, axis=axis)), expected
    )
    back = moving.placed(taken, axis, indices, shape[axis])  # what is repeated is the same
    np.testing.assert_array_equal(
        run_operator("Gather", applied(back, x), indices, axis=axis), expected
    )


def test_placed_refuses_to_map_one_element_in_two_ways():
    with refused(Reason.NOT_PER_CHANNEL, "repeats what differs"):
        moving.placed(of([1.0, 2.0]), 0, np.array([1, 1]), 3)
    with refused(Reason.NOT_PER_CHANNEL, "repeats what differs"):
        moving.placed(of([1.0, 2.0]), 0, np.array([1, -2]), 3)


@given(data, shapes(), st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_joined_is_what_a_concat_joins(data, shape, sizes):
    axis = data.draw(st.integers(0, len(shape) - 1))
    widths = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
    parts = [data.draw(maps(width)) for width in widths]
    rng = data.draw(rngs())
    tensors = [rng.normal(size=width) for width in widths]
    joined = moving.joined(parts, axis, sizes)
    mapped = [part.scale * x + part.shift for part, x in zip(parts, tensors, strict=True)]
    y = run_operator("Concat", *tensors, axis=axis)
    if y.size:
        np.testing.assert_array_equal(
            applied(joined, y), run_operator("Concat", *mapped, axis=axis)
        )
    for part, again, size in zip(parts, moving.split(joined, axis, sizes), sizes, strict=True):
        if size:  # what has no elements has any map
            same(again, part)


@given(data, shapes(), st.lists(st.integers(0, 3), min_size=1, max_size=3))
def test_split_is_what_a_split_splits(data, shape, sizes):
    axis = data.draw(st.integers(0, len(shape) - 1))
    shape = (*shape[:axis], sum(sizes), *shape[axis + 1 :])
    a, x = data.draw(maps(shape)), data.draw(rngs()).normal(size=shape)
    parts = moving.split(a, axis, sizes)
    ends = np.cumsum(sizes)[:-1]
    expected = np.split(applied(a, x), ends, axis)
    for part, y, mapped in zip(parts, np.split(x, ends, axis), expected, strict=True):
        np.testing.assert_array_equal(part.scale * y + part.shift, mapped)


def test_joined_and_split_need_sizes_only_where_maps_differ():
    a, b = of([2.0, 3.0], shape=(2, 1)), of([2.0, 4.0], shape=(2, 1))
    same(moving.joined([a, a], 1, [None, "W"]), a)
    assert moving.split(a, 1, [None, "W"]) == [a, a]
    with refused(Reason.SHAPE_UNKNOWN, "concatenation of sizes"):
        moving.joined([a, b], 1, [None, 3])
    with refused(Reason.SHAPE_UNKNOWN, "concatenation of sizes"):
        moving.joined([a, a], 0, [2, "C"])
    with refused(Reason.SHAPE_UNKNOWN, "split into sizes"):
        moving.split(a, 0, [1, None])


@given(data, st.integers(1, 3), st.sampled_from([1, 2]), st.booleans())
def test_repeated_channels_are_those_of_depth_to_space(data, channels, block, neighbours):
    mode = "CRD" if neighbours else "DCR"
    x = data.draw(rngs()).normal(size=(2, channels * block**2, 2, 3))
    after = data.draw(maps((2, channels, 2 * block, 3 * block), along=[1]))
    before = moving.repeated(after, 1, block**2, neighbours)
    expected = applied(after, run_operator("DepthToSpace", x, blocksize=block, mode=mode))
    y = run_operator("DepthToSpace", applied(before, x), blocksize=block, mode=mode)
    np.testing.assert_array_equal(y, expected)
    same(moving.unrepeated(before, 1, block**2, neighbours), after)


def test_repeated_refuses_what_differs_elsewhere():
    a = of([1.0, 2.0], shape=(1, 1, 2, 1))
    with refused(Reason.NOT_PER_CHANNEL, "it differs along axis 2"):
        moving.repeated(a, 1, 4, True)
    with refused(Reason.NOT_PER_CHANNEL, "it differs along axis 2"):
        moving.unrepeated(a, 1, 4, True)


@pytest.mark.parametrize(
    ("scale", "neighbours"),
    [([1.0, 1.0, 2.0, 2.0], False), ([1.0, 2.0, 1.0, 2.0], True), ([1.0, 2.0, 3.0], True)],
)
def test_unrepeated_refuses_channels_that_become_one_but_differ(scale, neighbours):
    a = of(scale)
    with refused(Reason.NOT_PER_CHANNEL, "channels that become one differ"):
        moving.unrepeated(a, 0, 2, neighbours)
    if len(scale) == 4:
        same(moving.unrepeated(a, 0, 2, not neighbours), of([1.0, 2.0]))
