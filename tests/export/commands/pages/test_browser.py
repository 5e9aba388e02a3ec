"""The page of a parity check in a real browser: that it fits, and what is to be seen."""

from keras_bn.export.commands.pages.parity_page import render_parity_page
from tests.export.commands.pages.browser import assert_fits, look
from tests.export.commands.pages.parity_reports import (
    FOLD,
    LATENCY,
    SECTIONS,
    document,
    faulty,
    hostile,
    layers,
    stages,
)


def test_faulty_page_is_read_on_a_telephone(tmp_path):
    seen = look(render_parity_page(faulty()), tmp_path, width=400, height=2600)
    assert_fits(seen, 400, dark=False)
    assert seen.first.startswith("Differs")
    assert seen.headings == ["Differs", *SECTIONS]
    (_, x, y, wide, high), *marks = seen.boxes
    assert len(marks) == 180
    assert all(abs(mark[1] - x) <= wide / 2 and abs(mark[2] - y) <= high / 2 for mark in marks)
    assert [mark[1] for mark in marks] == sorted(mark[1] for mark in marks)
    good, bad = ([m[2] for m in marks if m[0] == f"mark {s}"] for s in ("agrees", "differs"))
    assert (len(good), len(bad)) == (110, 70)
    assert min(good) - max(bad) > high / 4  # a fault is seen from afar
    row = seen.pixels[round(bad[0])].astype(int)
    assert (row[:, 0] - row[:, 1]).max() > 100  # in red


def test_passing_page_in_the_dark(tmp_path):
    made = document(layers=layers(3), stages=stages(), fold=FOLD, latency=LATENCY)
    seen = look(render_parity_page(made), tmp_path, width=1200, dark=True)
    assert_fits(seen, 1200, dark=True)
    assert seen.first.startswith("Agrees")
    assert seen.headings[0] == "Agrees"
    assert seen.pixels.max() > 200  # there is light text
    assert len(seen.boxes) == 4


def test_hostile_page_fits_too(tmp_path):
    unfolded = render_parity_page(hostile()).replace("<details>", "<details open>")
    seen = look(unfolded, tmp_path, width=400, dark=True)
    assert_fits(seen, 400, dark=True)
    assert seen.headings[0] == "Differs"


def test_browser_sees_what_is_wrong_with_a_page(tmp_path):
    text = render_parity_page(document())
    wide = '<img src="https://example.org/x.png"><div style="width:900px">wide</div></body>'
    seen = look(text.replace("</body>", wide), tmp_path, width=400)
    assert seen.needed > 900
    assert any("Content Security Policy" in line for line in seen.console)
