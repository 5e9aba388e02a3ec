"""Every linear operator in every structure: the fold is exact, and it takes what it can.

A case has a number, which says which operator and which affine operator of the lists it takes.
Failures name their numbers: `draft(family, structure, number)` makes one of them again.
"""

import functools
import itertools
import zlib

import numpy as np
import pytest

from keras_bn.export import Reason
from tests.export.stages.folding.fold_checks import affine_nodes, check_fold, fold
from tests.export.stages.folding.fold_drafts import Draft
from tests.export.stages.folding.fold_operators import FAMILIES
from tests.export.stages.folding.fold_structures import STRUCTURES
from tests.export.stages.folding.fold_ways import AFFINES

TABLE = [
    pytest.param(family, structure, id=f"{family}, {structure.name}")
    for family in FAMILIES
    for structure in STRUCTURES
]
FEW, STEP = 3, 1009  # cases of a structure in the fast run, and how far apart their numbers are


def draft(family, structure, number):
    """Return a graph, its operator and its affine operator; None if they do not fit."""
    operators = FAMILIES[family]
    operator = operators[number % len(operators)]
    affine = AFFINES[number // len(operators) % len(AFFINES)]
    seed = zlib.crc32(f"{family} {structure.name} {number}".encode())
    g = Draft(np.random.default_rng(seed), opset=13 + number % 6)
    outputs = structure.draw(g, operator, affine)
    if outputs is None:
        return None
    if structure.way.name == "Div" and None in outputs:  # a quotient of what is near zero
        return None
    assert None not in outputs, "a tensor is too large"
    dynamic = number % 3 == 0 and structure.keeps_batch(operator)
    return g.finish(*outputs, dynamic=dynamic), operator, affine


@functools.cache
def few(family, structure):
    """Return a few cases that fit."""
    size = len(FAMILIES[family]) * len(AFFINES)
    numbers = [STEP * i % size for i in range(min(size, 40))]
    cases = ((number, draft(family, structure, number)) for number in dict.fromkeys(numbers))
    fitting = ((number, *case) for number, case in cases if case is not None)
    return list(itertools.islice(fitting, FEW))


def every(family, structure):
    """Yield each operator with each affine operator, or with one if something is around them."""
    size, affines = len(FAMILIES[family]), len(AFFINES)
    direct = structure.way.name == "nothing" and not structure.also
    for index in range(size):
        for turn in range(affines) if direct else (index,):
            number = index + size * (turn % affines)
            case = draft(family, structure, number)
            if case is not None:
                yield (number, *case)


def expectation_missed(structure, drawn, operator, affine):
    """Return what is wrong with what was folded, or None."""
    folded, report = fold(drawn.model)
    left, stops = len(affine_nodes(folded)), structure.stops(operator, affine)
    told = {row.reason for row in report.refusals} | {r.forward_reason for r in report.refusals}
    if Reason.BITS_LOST in told:  # a mean drawn far from zero, of what the graph is given
        return None
    if not stops:
        allowed = structure.summands(operator, affine)
        if left <= allowed:
            return None
        return f"{left} affine nodes left, not {allowed}: {report}"
    if left == 0:
        return "it has to stay"
    return None if told & stops else f"told {told}, not one of {stops}"


def failures(cases, check):
    """Return a line for each case that fails."""
    lines = []
    for number, drawn, operator, affine in cases:
        problem = check(number, drawn, operator, affine)
        if problem:
            lines.append(f"{number}: {operator.name}; {affine}: {problem}")
    return lines


def inexact(number, drawn, *_, every_nth=1):
    try:
        check_fold(drawn.model, drawn.inputs, drawn.expected, runtime=number % every_nth == 0)
    except AssertionError as e:
        return str(e)
    except Exception as e:
        return repr(e)[:300]
    return None


@pytest.mark.parametrize(("family", "structure"), TABLE)
def test_fold_is_exact(family, structure):
    lines = failures(few(family, structure), inexact)
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(("family", "structure"), TABLE)
def test_fold_takes_all_that_it_can(family, structure):
    lines = failures(few(family, structure), lambda _, *case: expectation_missed(structure, *case))
    assert not lines, "\n".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize(("family", "structure"), TABLE)
def test_whole_table(family, structure):
    def check(number, *case):
        problem = inexact(number, *case, every_nth=7)
        return problem or expectation_missed(structure, *case)

    lines = failures(every(family, structure), check)
    assert not lines, f"{len(lines)} fail\n" + "\n".join(lines[:20])
