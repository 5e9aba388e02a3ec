"""From a tensor of a graph back to those that it is computed from."""

from collections.abc import Callable, Iterable, Set

__all__ = ["nearest"]


def nearest(
    values: Iterable[str], before: Callable[[str], Iterable[str]], wanted: Set[str]
) -> set[str]:
    """Return which of some tensors, or of those that they are computed from, are wanted ones.

    Behind a wanted one the search does not go on.

    Args:
        values: Names of the tensors.
        before: Returns those that one is computed from.
        wanted: Names.
    """
    found, stack = set(), list(values)
    seen = set(stack)
    while stack:
        value = stack.pop()
        if value in wanted:
            found.add(value)
        else:
            new = set(before(value)) - seen
            stack.extend(new)
            seen |= new
    return found
