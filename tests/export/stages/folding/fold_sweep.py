"""Fold many random graphs in two processes, and say which seeds fail and why.

python -m tests.export.stages.folding.fold_sweep --graphs 2000 --seed 0
python -m tests.export.stages.folding.fold_sweep --one 1234

The second takes one seed, and prints its smallest failing graph.
"""

import argparse
import multiprocessing
import re
import time
import warnings

from tests.export.stages.folding.fold_checks import check_fold, check_other_batch, fold
from tests.export.stages.folding.fold_graphs import random_graph
from tests.export.stages.folding.fold_reduction import reduced, text

NTH = 5  # of so many graphs, one runs in ONNX Runtime, too
SHARE = 100  # seeds that a process takes at a time


def problem(model, inputs, expected=None, *, runtime=True):
    """Return what is wrong with the fold of a graph, or None."""
    try:
        folded, _ = check_fold(model, inputs, expected, runtime=runtime)
        check_other_batch(model, folded, inputs)
    except AssertionError as e:
        return str(e)
    except Exception as e:
        return f"{type(e).__name__}: {e}".partition("\n")[0]
    return None


def kind_of(wrong):
    """Return a failure without its names and numbers."""
    return re.sub(r"'[^']*'|[\d.]+(e-?\d+)?|[({].*", "", wrong or "")[:60]


def examine(seed, nth=1):
    """Return what is wrong with the fold of one random graph, or None."""
    try:
        drawn = random_graph(seed)
    except Exception as e:
        return f"no graph to fold: {type(e).__name__}: {e}"
    return problem(drawn.model, drawn.inputs, drawn.expected, runtime=seed % nth == 0)


def examine_all(first, last, nth=NTH):
    """Return the seeds that fail with the reasons, and the slowest graph's seconds and seed."""
    failures, slowest = [], (0.0, first)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(first, last):
            start = time.perf_counter()
            wrong = examine(seed, nth)
            slowest = max(slowest, (time.perf_counter() - start, seed))
            if wrong:
                failures.append((seed, wrong))
    return failures, slowest


def sweep(first, last, processes=2):
    """Do the same in several processes."""
    shares = [(start, min(start + SHARE, last)) for start in range(first, last, SHARE)]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        results = pool.starmap(examine_all, shares)
    failures = [failure for found, _ in results for failure in found]
    return failures, max(slowest for _, slowest in results)


def explain(seed):
    """Return what is wrong, the smallest graph that fails, and what became of it."""
    drawn = random_graph(seed)
    wrong = problem(drawn.model, drawn.inputs)
    if wrong is None:
        report = fold(drawn.model)[1]
        return f"{seed}: nothing is wrong\n{text(drawn.model)}\n{report}"

    def fails(model, inputs):
        return kind_of(problem(model, inputs)) == kind_of(wrong)

    model, inputs = reduced(drawn.model, drawn.inputs, fails)
    lines = [f"{seed}: {wrong}", "the smallest graph that fails:", text(model)]
    lines.append(str(problem(model, inputs)))
    try:
        folded, report = fold(model)
    except Exception as e:
        return "\n".join([*lines, f"fold raises {e!r}"])
    return "\n".join([*lines, "folded:", text(folded), str(report)])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graphs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--one", type=int, help="explain this seed only")
    options = parser.parse_args()
    if options.one is not None:
        print(explain(options.one))
        return
    start = time.perf_counter()
    failures, slowest = sweep(options.seed, options.seed + options.graphs)
    for seed, wrong in failures:
        print(f"{seed}: {wrong[:300]}")
    print(f"{len(failures)} of {options.graphs} fail; {time.perf_counter() - start:.0f} s")
    print(f"slowest: {slowest[0]:.2f} s, seed {slowest[1]}")


if __name__ == "__main__":
    main()
