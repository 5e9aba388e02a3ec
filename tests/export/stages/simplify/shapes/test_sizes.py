import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_bn.export.stages.simplify.shapes.sizes import (
    exact_quotient,
    is_nonnegative,
    product,
    unknown,
)

UNKNOWNS = [unknown() for _ in range(3)]
INTEGERS = st.integers(-4, 4)
SIZES = st.recursive(
    INTEGERS | st.sampled_from(UNKNOWNS),
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner).map(
        lambda t: {"+": t[1] + t[2], "-": t[1] - t[2], "*": t[1] * t[2]}[t[0]]
    ),
    max_leaves=6,
)


def value(size, numbers):
    """Evaluate a size for given values of the unknowns."""
    if isinstance(size, int):
        return size
    known = {next(iter(n.terms))[0]: v for n, v in zip(UNKNOWNS, numbers, strict=True)}
    total = 0
    for monomial, factor in size.terms.items():
        for number in monomial:
            factor *= known[number]
        total += factor
    return total


@given(SIZES, SIZES, st.tuples(*[st.integers(0, 9)] * 3))
def test_arithmetic_is_that_of_the_values(a, b, numbers):
    va, vb = value(a, numbers), value(b, numbers)
    assert value(a + b, numbers) == va + vb
    assert value(a - b, numbers) == va - vb
    assert value(a * b, numbers) == va * vb
    assert value(product([a, b, 2]), numbers) == 2 * va * vb
    if is_nonnegative(a):
        assert va >= 0


@given(SIZES, SIZES)
def test_product_divides_exactly(a, b):
    if b != 0:
        assert exact_quotient(a * b, b) == a


@given(SIZES, SIZES, st.tuples(*[st.integers(0, 9)] * 3))
def test_quotient_is_exact_or_none(a, b, numbers):
    quotient = exact_quotient(a, b)
    if quotient is not None:
        assert quotient * b == a
        assert value(quotient, numbers) * value(b, numbers) == value(a, numbers)


@given(SIZES, SIZES)
def test_equal_sizes_have_equal_hashes(a, b):
    same = a + b - b
    assert same == a
    assert hash(same) == hash(a)


def test_size_without_unknowns_is_an_int():
    n = UNKNOWNS[0]
    assert type((2 * n + 1) - 2 * n) is int
    assert type(n * 0) is int


@pytest.mark.parametrize("divisor", [0, 2, 3 * UNKNOWNS[1]])
def test_inexact_quotient_is_none(divisor):
    assert exact_quotient(3 * UNKNOWNS[0], divisor) is None


def test_size_prints():
    assert "*" in repr(UNKNOWNS[0] * UNKNOWNS[1] + 2)


def test_signed_unknown_may_be_negative():
    assert is_nonnegative(unknown())
    assert not is_nonnegative(unknown(signed=True) + 1)
