"""Random graphs for the fold: every operator that it knows, and affine ones everywhere.

About two nodes in five are affine. Weights are shared now and then, tensors in the middle are
outputs of the graph, shapes are sometimes unknown, and a constant may be an input with a default.
"""

import numpy as np

from tests.export.stages.folding.fold_drafts import Draft
from tests.export.stages.folding.fold_joins import JOINING
from tests.export.stages.folding.fold_passages import PASSING, STOPPING
from tests.export.stages.folding.fold_pieces import LINEAR, affine, affines
from tests.export.stages.folding.fold_reference import captured

LARGEST = 15  # nodes


def random_graph(seed, *, most=LARGEST):
    """Return a `RandomGraph` of 3 nodes or more, of an opset from 13 to 18.

    Args:
        seed: Two graphs of one seed are the same.
        most: The number of nodes after which nothing is added; a piece may go past it.
    """
    rng = np.random.default_rng(seed)
    g = Draft(rng, int(rng.integers(13, 19)))
    g.axis, g.batch = {}, int(rng.choice([1, 2, 2, 3]))
    shape = (g.batch, g.choice(1, 2, 3, 4, 4), *rng.integers(2, 6, g.choice(0, 1, 1, 2, 2, 2, 3)))
    for _ in range(g.choice(1, 1, 2)):
        g.input(*(min(int(n), 3) if len(shape) == 5 else int(n) for n in shape))
    wanted = int(rng.integers(3, most + 1))
    for _ in range(60):
        if len(g.nodes) >= wanted:
            break
        _grow(g)
    return _finish(g)


def _grow(g):
    floats = g.floats()
    x = floats[-1] if g.chance(0.65) else g.choice(*floats)
    kind = g.rng.random()
    if kind < 0.1:
        affines(g, x)
    elif kind < 0.3:
        x = affine(g, x) or x if g.chance(0.45) else x
        y = LINEAR[g.choice(*LINEAR)](g, x)
        if y and g.chance(0.5):
            affine(g, y)
    elif kind < 0.55:
        _between(g, x)
    elif kind < 0.7:
        g.choice(*PASSING)(g, x)
    elif kind < 0.86:
        g.choice(*JOINING)(g, x)
    else:
        g.choice(*STOPPING)(g, x)


def _between(g, x):
    """Something between an affine and a linear operator, in either order."""
    steps = [affine, g.choice(*PASSING, *PASSING, *JOINING, *STOPPING), LINEAR[g.choice(*LINEAR)]]
    for step in steps if g.chance(0.5) else steps[::-1]:
        x = step(g, x) or x


def _finish(g):
    read = {name for node in g.nodes for name in (*node.input, *captured(node))}
    made = [name for node in g.nodes for name in node.output]
    floats = set(g.floats())
    outputs = [n for n in made if n in floats and (n not in read or g.chance(0.07))]
    overridable = [n for n, a in g.constants.items() if a.dtype == np.float32 and g.chance(0.01)]
    return g.finish(
        *(outputs or made[-1:]),
        dynamic=g.chance(0.3),
        inferred=g.chance(0.95),
        vague=g.chance(0.3),
        overridable=overridable,
    )
