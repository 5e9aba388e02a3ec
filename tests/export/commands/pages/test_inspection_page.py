"""The page of `keras-bn inspect --html`, from reports made by hand."""

import re

import numpy as np
import pytest

from keras_bn import Cause
from keras_bn.export.commands.pages.inspection_page import render_page
from keras_bn.export.commands.statistics.inspection import Inspection
from keras_bn.export.files.provenance import SourceFile
from keras_bn.statistics.diagnosis import Diagnosis
from keras_bn.statistics.gap import GapReport, OutputGap
from keras_bn.statistics.layer_gap import LayerGap
from keras_bn.statistics.shift import CovariateShiftReport, LayerShift
from tests.export.commands.pages.browser import assert_fits, look
from tests.export.commands.pages.markup import EVIL, Page, assert_self_contained


def gap_report(gaps, *, diagnoses=(), losses=(None, None), unchanged=None, skipped=0):
    return GapReport(
        outputs=(OutputGap("logits", 0.25, 3.0),),
        loss_with_batch_statistics=losses[0],
        loss_with_stored_statistics=losses[1],
        layers=tuple(
            LayerGap(name, gap, gap * 0.9, gap * 0.2, False) for name, gap in gaps.items()
        ),
        diagnoses=tuple(diagnoses),
        unchanged=unchanged or {},
        batches=5,
        skipped_batches=skipped,
        samples=160,
    )


def layer_shift(name, divergence, shifted=True, chance=0.1):
    ones = np.ones(3)
    return LayerShift(
        layer=name,
        mean_difference=ones,
        mean_error=ones * chance,
        log_variance_ratio=ones,
        log_variance_error=ones * chance,
        divergence=ones * divergence,
        is_shifted=np.array([shifted, False, False]),
    )


def inspection(gap, shifts, **changes):
    shift = CovariateShiftReport(
        layers=tuple(shifts),
        unchanged=gap.unchanged,
        batches=5,
        skipped_batches=gap.skipped_batches,
        samples=160,
    )
    values = {
        "model": SourceFile("runs/model.keras", 12345, "ab" * 32),
        "data": SourceFile("data.npz", 678, "cd" * 32),
        "batch_size": 32,
        "inputs": ("image",),
        "targets": ("y",),
        "notes": (),
        "command": "keras-bn inspect runs/model.keras --data data.npz",
        "versions": {"keras-bn": "0.1.0"},
        "created": "2025-01-01 00:00 UTC",
        **changes,
    }
    return Inspection(gap=gap, shift=shift, **values)


def diagnosis(cause, *layers, evidence="seen", advice="do `this`"):
    return Diagnosis(cause, layers, evidence, advice)


def page(*args, **kwargs):
    return Page(render_page(inspection(*args, **kwargs)))


def test_verdict_and_its_cure_come_first():
    found = diagnosis(Cause.MOMENTUM_TOO_HIGH, "bn", evidence="82% of it is left.")
    text = page(gap_report({"bn": 2.0}, diagnoses=[found]), [layer_shift("bn", 1.5)]).text
    order = [
        text.index(words)
        for words in (
            "1 cause for concern",
            Cause.MOMENTUM_TOO_HIGH,
            "82% of it is left.",
            "do this",
            "keras-bn recalibrate runs/model.keras runs/model-recalibrated.keras "
            "--data TRAINING.npz --batch-size 32",
            "What comes out",
            "RMS difference",
            "Layer by layer",
            "All layers in figures",
            "How to repeat it",
        )
    ]
    assert order == sorted(order)


def test_good_model_is_said_to_be_good():
    found = page(gap_report({"bn": 0.01}), [layer_shift("bn", 1e-7, shifted=False)])
    assert "no cause for concern" in found.text
    assert ("class", "verdict good") in found.attributes


def test_every_cause_has_its_meaning():
    causes = [diagnosis(cause, "bn") for cause in Cause]
    text = page(gap_report({"bn": 2.0}, diagnoses=causes), []).text
    assert f"{len(Cause)} causes for concern" in text
    assert all(cause in text for cause in Cause)
    from keras_bn.export.commands.pages.inspection_page import MEANING

    assert set(MEANING) == set(Cause)


def test_hostile_names_are_escaped_everywhere():
    names = {EVIL: 1.0, "}}{{ 7 * 7 }}": 0.5}
    found = diagnosis(Cause.DATA_DIFFER, EVIL, evidence=f"at {EVIL} `{EVIL}`", advice=EVIL)
    report = gap_report(names, diagnoses=[found], unchanged={EVIL: EVIL})
    source = SourceFile(f"{EVIL}.keras", 1, "ab")
    text = render_page(
        inspection(
            report,
            [layer_shift(EVIL, 1.0)],
            model=source,
            data=source,
            inputs=(EVIL,),
            targets=(EVIL,),
            notes=(EVIL,),
            command=EVIL,
        )
    )
    assert_self_contained(text)
    assert "<code>&lt;script&gt;" in text
    assert "}}{{ 7 * 7 }}" in Page(text).text


def test_page_needs_nothing_else():
    assert_self_contained(
        render_page(inspection(gap_report({"bn": 1.0}), [layer_shift("bn", 1.0)]))
    )


def places(found, kind):
    """Return where the bars end or the marks stand, in percent."""
    styles = found.values("style")
    return [float(v.removeprefix(kind)[:-1]) for v in styles if v.startswith(kind)]


def test_bars_are_as_long_as_the_figures():
    found = page(gap_report({"a": 0.001, "b": 0.1, "c": 10.0, "d": 1000.0}), [])
    assert places(found, "width:") == [0, 20, 60, 100]  # five decades from 0.01
    assert all(0 <= place <= 100 for place in places(found, "left:"))


def test_figures_without_a_value_are_named_and_not_drawn():
    gaps = {"a": float("nan"), "b": float("inf"), "c": 0.0}
    shifts = [layer_shift("a", float("nan")), layer_shift("b", 1.0, chance=float("inf"))]
    found = page(gap_report(gaps), shifts)
    assert len(places(found, "width:")) == 2  # the gap of c, the shift of b
    assert {"NaN", "∞"} <= set(found.text.split())


def test_layers_stand_in_calling_order_and_by_rank():
    gaps = {"late": 0.3, "early": 0.5}
    text = render_page(
        inspection(gap_report(gaps), [layer_shift("late", 0.1), layer_shift("early", 5.0)])
    )
    rows = re.findall(r'<li class="[^"]*"><span class="layer">(\w+)</span>', text)
    assert rows == ["late", "early", "early", "late"]


def test_long_ranking_is_cut_and_the_table_is_not():
    names = [f"block_{i}" for i in range(60)]
    text = page(
        gap_report(dict.fromkeys(names, 0.1)), [layer_shift(name, 1.0) for name in names]
    ).text
    assert "The 15 most shifted of 60 layers." in text
    assert text.count("block_59") == 2  # in the picture of the gaps, and in the table


def test_what_was_left_out_is_said():
    report = gap_report({}, unchanged={"bn": "it is frozen (`trainable=False`)"}, skipped=2)
    text = page(report, [], notes=("The loss is not compared: it is unknown.",)).text
    assert "nothing to compare" in text
    assert "bn both it is frozen ( trainable=False )" in text
    assert "2 of 7 skipped" in text
    assert "The loss is not compared: it is unknown." in text


@pytest.mark.parametrize(("losses", "said"), [((0.5, 12.0), True), ((None, None), False)])
def test_loss_is_shown_where_it_is_known(losses, said):
    text = page(gap_report({"bn": 0.1}, losses=losses), []).text
    assert ("0.500 → 12" in text) is said


@pytest.mark.parametrize(("width", "dark"), [(400, False), (1200, True)])
def test_page_fits_a_window_in_light_and_dark(tmp_path, width, dark):
    gaps = {f"stage_{i}/a_rather_long_name_of_a_block/bn": 0.3 * i for i in range(9)}
    found = diagnosis(Cause.MOMENTUM_TOO_HIGH, *gaps)
    report = gap_report(gaps, diagnoses=[found], losses=(0.5, 12.0))
    text = render_page(inspection(report, [layer_shift(name, gaps[name]) for name in gaps]))
    seen = look(text, tmp_path, width=width, dark=dark)
    assert_fits(seen, width, dark=dark)
    assert seen.headings[0] == "model.keras on data.npz"
