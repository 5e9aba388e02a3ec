"""The figures in docs/statistics.md are those that the examples print."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
SCATTER = {"small_batches": 0.05, "domain_shift": 0.1}  # sums in another order train other weights


def tables(text):
    """Return the tables of a page: lists of rows, lists of cells."""
    found = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    return [[row.strip("| ").split(" | ") for row in table.splitlines()] for table in found]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCATTER)
def test_example_prints_the_table_of_the_page(name):
    command = [sys.executable, "-m", f"examples.{name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    (printed,) = tables(done.stdout)
    (expected,) = (table for table in tables(PAGE) if table[0] == printed[0])
    for row, expected_row in zip(printed, expected, strict=True):
        for cell, expected_cell in zip(row, expected_row, strict=True):
            if re.fullmatch(r"[\d.]+", expected_cell):
                assert float(cell) == pytest.approx(float(expected_cell), abs=SCATTER[name])
            else:
                assert cell == expected_cell
    if name == "small_batches":
        assert "Diagnoses: BATCHES_TOO_SMALL, MOMENTUM_TOO_HIGH" in done.stdout
