"""From what is wrong in a file back to the tensors that it comes from."""

from collections.abc import Set

from .taps import Taps

__all__ = ["first_wrong", "known_before"]


def first_wrong(taps: Taps, known: set[str], bad: set[str], wrong: Set[str]) -> set[str]:
    """Return the bad tensors, among wrong ones and before them, that are computed from no other.

    Args:
        taps: The tensors of a file.
        known: Names of those that were compared.
        bad: Names of those that are not as they should be.
        wrong: Names of tensors, or outputs of the graph, to begin with.
    """
    stack = [value for value in known_before(taps, known, wrong) if value in bad]
    reached, first = set(stack), set()
    while stack:
        value = stack.pop()
        sources = _nearest(taps, taps.taps[value].before, known) & bad
        if not sources:
            first.add(value)
        stack.extend(sources - reached)
        reached |= sources
    return first


def known_before(taps: Taps, known: set[str], wrong: Set[str]) -> set[str]:
    """Return the known tensors that wrong ones are, or are computed from.

    Args:
        taps: The tensors of a file.
        known: Names of those that were compared.
        wrong: Names of tensors, or outputs of the graph, to begin with.
    """
    ends = [taps.ends.get(name, frozenset([name])) for name in wrong]
    return {value for end in ends for value in _nearest(taps, end, known)}


def _nearest(taps: Taps, values: Set[str], wanted: Set[str]) -> set[str]:
    """Return which of these tensors, or of those that they are computed from, are wanted ones.

    Behind a wanted one the search does not go on.
    """
    found, stack, seen = set(), list(values), set(values)
    while stack:
        value = stack.pop()
        if value in wanted:
            found.add(value)
        elif value in taps.taps:
            new = taps.taps[value].before - seen
            stack.extend(new)
            seen |= new
    return found
