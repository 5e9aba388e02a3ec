import itertools

from hypothesis import given
from hypothesis import strategies as st

from keras_bn.export.stages.layout.minimum_cut import MinimumCut

ARCS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 9)), max_size=25)


def value(arcs, at_source):
    return sum(c for tail, head, c in arcs if at_source[tail] and not at_source[head])


@given(ARCS)
def test_cut_is_the_smallest_of_all(arcs):
    cut = MinimumCut()
    for _ in range(5):
        cut.add_node()
    for tail, head, capacity in arcs:
        cut.add_arc(tail, head, capacity)
    sides = cut.source_side()
    assert sides[MinimumCut.SOURCE]
    assert not sides[MinimumCut.SINK]
    every = itertools.product([False, True], repeat=5)
    assert value(arcs, sides) == min(value(arcs, (True, False, *rest)) for rest in every)


def test_cut_without_arcs_leaves_the_source_alone():
    cut = MinimumCut()
    cut.add_node()
    assert cut.source_side() == [True, False, False]
