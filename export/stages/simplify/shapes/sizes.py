"""Sizes known by name only: polynomials with integer coefficients.

A dynamic dimension is an unknown n >= 0. What shapes are computed from is whole-number arithmetic,
so every size of a graph is a polynomial in those unknowns,

    a transposed convolution of stride 2 makes   2*n + 1,
    Flatten makes                                12*n,

and two sizes are the same in every run exactly if their polynomials are the same. A polynomial
without unknowns is a plain `int` here, which is what nearly every size is. What is no polynomial,
such as a rounded quotient, becomes an unknown of its own. Unknowns that may be negative, numbers
that the graph computes from data, have negative numbers.
"""

import itertools
from collections.abc import Iterable, Mapping
from typing import Union

__all__ = ["Polynomial", "Shape", "Size", "exact_quotient", "is_nonnegative", "product", "unknown"]

Monomial = tuple[int, ...]  # the unknowns that are multiplied, sorted; () is the constant term
Size = Union[int, "Polynomial"]

_numbers = itertools.count(1)

Shape = tuple[Size, ...]


class Polynomial:
    """A sum of products of unknowns; immutable. Arithmetic gives an `int` where it can.

    >>> n = unknown()
    >>> (2 * n + 1) - 2 * n, (n + 1) * (n - 1) == n * n - 1
    (1, True)
    """

    __slots__ = ("_hash", "terms")

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        self.terms = terms
        self._hash = hash(frozenset(terms.items()))

    def __repr__(self) -> str:
        return " + ".join(
            "*".join(map(str, [factor, *(f"n{i}" for i in monomial)]))
            for monomial, factor in sorted(self.terms.items())
        )

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Polynomial) and self.terms == other.terms

    def __add__(self, other: Size) -> Size:
        terms = dict(self.terms)
        for monomial, factor in _terms(other).items():
            terms[monomial] = terms.get(monomial, 0) + factor
        return _reduced(terms)

    def __mul__(self, other: Size) -> Size:
        terms: dict[Monomial, int] = {}
        for a, factor_a in self.terms.items():
            for b, factor_b in _terms(other).items():
                both = tuple(sorted(a + b))
                terms[both] = terms.get(both, 0) + factor_a * factor_b
        return _reduced(terms)

    def __neg__(self) -> "Polynomial":
        return Polynomial({monomial: -factor for monomial, factor in self.terms.items()})

    def __sub__(self, other: Size) -> Size:
        return self + -other

    def __rsub__(self, other: int) -> Size:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


def unknown(*, signed: bool = False) -> Polynomial:
    """Return a number of which nothing is known but, unless `signed`, that it is >= 0."""
    number = next(_numbers)
    return Polynomial({(-number if signed else number,): 1})


def product(sizes: Iterable[Size]) -> Size:
    """Return the number of elements of a shape."""
    result: Size = 1
    for size in sizes:
        result = result * size
    return result


def is_nonnegative(size: Size) -> bool:
    """Say whether a size is >= 0 whatever the unknowns are; False where that is not obvious."""
    return all(
        factor >= 0 and all(number > 0 for number in monomial)
        for monomial, factor in _terms(size).items()
    )


def exact_quotient(dividend: Size, divisor: Size) -> Size | None:
    """Return q such that `dividend` = q * `divisor` as polynomials, or None."""
    if divisor == 0:
        return None
    leading = max(_terms(divisor), key=_degree)
    quotient: Size = 0
    while dividend != 0:
        highest = max(_terms(dividend), key=_degree)
        factor, remainder = divmod(_terms(dividend)[highest], _terms(divisor)[leading])
        left = _without(highest, leading)
        if remainder or left is None:
            return None
        step = _reduced({left: factor})
        quotient = quotient + step
        dividend = dividend - step * divisor
    return quotient


def _terms(size: Size) -> Mapping[Monomial, int]:
    return size.terms if isinstance(size, Polynomial) else {(): size} if size else {}


def _reduced(terms: Mapping[Monomial, int]) -> Size:
    terms = {monomial: factor for monomial, factor in terms.items() if factor}
    if not terms.keys() - {()}:
        return terms.get((), 0)
    return Polynomial(terms)


def _degree(monomial: Monomial) -> tuple[int, Monomial]:
    return len(monomial), monomial


def _without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    left = list(monomial)
    for number in factor:
        if number not in left:
            return None
        left.remove(number)
    return tuple(left)
