"""The page of a parity check, from reports made by hand; test_browser.py looks at it."""

import dataclasses
import math
import re
from dataclasses import replace

import keras
import pytest

from keras_bn.export import check_parity
from keras_bn.export.commands.pages import parity_page
from keras_bn.export.commands.pages.figures import error_figure
from keras_bn.export.commands.pages.parity_page import ParityDocument, render_parity_page
from keras_bn.export.files.provenance import SourceFile
from keras_bn.export.runtime.latency import Latency, Timing
from tests.export.commands.pages.markup import Page, assert_self_contained
from tests.export.commands.pages.parity_reports import (
    FOLD,
    LATENCY,
    SECTIONS,
    STAGES,
    document,
    errors,
    fault,
    faulty,
    hostile,
    layers,
    output,
    stages,
)


def page(*outputs, **parts):
    return Page(render_parity_page(document(*outputs, **parts)))


def test_fault_comes_first_and_every_part_follows_in_order():
    text = Page(render_parity_page(faulty(3, 1))).text
    order = [
        text.index(words)
        for words in (
            "differs net.onnx does not compute what net.keras computes",
            "It is wrong behind the folding.",
            "folding: with batch norms folded into weights",
            "stage_0/block_1/conv, stage_0/block_1/bn",
            "tensor_1",
            "at [1, 3] it is 1.25 instead of 1.5",
            *SECTIONS,
            "keras-bn check runs/net.keras runs/net.onnx --seed 7",
            "ab" * 32,
            "cd" * 32,
            "normal, mean 0 and deviation 1",
            "drawn with seed 7",
            "keras-bn 0.1.0",
        )
    ]
    assert order == sorted(order)


def test_passing_page_is_whole_without_the_other_parts():
    found = page(output(5e-7), output(2e-7, name="embedding"))
    assert found.text.index("agrees net.onnx computes what net.keras computes") < 100
    assert "Nearest to its limit is output logits on drawn inputs" in found.text
    assert "ONNX Runtime misses the truth by 5.0·10⁻⁷" in found.text
    assert [part for part in SECTIONS if part in found.text] == [SECTIONS[0], SECTIONS[-1]]
    assert ("class", "verdict good") in found.attributes
    assert "None" not in found.text
    assert "✗" not in found.text


def test_fault_in_many_layers_names_the_first_and_hides_the_others():
    names = [f"layer_{i}" for i in range(40)]
    found = page(output(2e-3), fault=fault(*names, value=None))
    assert "In one of 40 layers, first layer_0" in found.text
    assert found.tags.count("details") == 2
    assert "Tensor" not in found.text


def test_fault_that_nobody_looked_for_is_said_to_be_unknown():
    found = page(output(2e-3))
    assert "In which stage and layer was not looked for." in found.text
    assert ("class", "verdict") in found.attributes


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (output(bad_channel=7), "channel 7 is wrong for its own magnitude"),
        (output(rms_tolerance=1e-8), "the root mean square error is 5.0·10⁻⁸, 1.0·10⁻⁸ is allowed"),
        (output(float("nan")), "the largest error is NaN of the output's scale"),
        (output(onnx=float("inf"), difference=float("nan")), "the largest error is ∞"),
    ],
)
def test_every_way_to_differ_is_told(row, said):
    assert said in page(row).text


def test_long_list_of_failures_is_cut_and_the_table_is_not():
    text = page(*(output(2e-3, name=f"out_{i}") for i in range(8))).text
    assert "And 3 more, below." in text
    assert text.count("Output out_") == 5
    assert text.count("✗ differs") == 8


def test_truth_that_is_not_float64_is_said():
    found = page(output(reference="Keras itself; it cannot run in float64: OpError", case="given"))
    assert "On given inputs the truth is not in float64 : it is Keras itself" in found.text


def test_quantiles_and_the_worst_value_are_told():
    row = replace(output(), optimised=errors(8e-7, index=(0, 9), expected=2.0, found=-0.123456789))
    text = page(row).text
    assert "50 % 90 % 99 % 99.9 % largest at expected found" in text
    assert "optimised 4.0·10⁻⁷ 7.2·10⁻⁷ 7.9·10⁻⁷ 8.0·10⁻⁷ 8.0·10⁻⁷ 0, 9 2 -0.123456789" in text


def test_agreement_of_classes_is_counted():
    text = page(output(argmax_agreement=5 / 6, top5_agreement=None)).text
    assert "same class" in text
    assert "5 of 6" in text
    assert "same top 5" not in text
    assert "same class" not in page(output()).text


def test_rows_of_an_output_stand_together():
    kinds = [output(name=name, case=case) for case in ("drawn", "constant") for name in "ab"]
    words = re.findall(r"[ab] on \w+ inputs", page(*kinds).text.partition("error allowed")[2])
    assert words[:4] == [
        f"{name} on {case} inputs" for name in "ab" for case in ("drawn", "constant")
    ]


def test_every_stage_is_explained():
    assert set(parity_page.STAGES) == set(STAGES)
    text = page(stages=stages()).text
    assert all(meaning in text for meaning in parity_page.STAGES.values())


def test_first_stage_that_differs_is_marked():
    found = page(output(2e-3), stages=stages("precision"), fault=fault("a", stage="precision"))
    kinds = [value for value in found.values("class") if value.startswith(("passed", "failed"))]
    assert kinds == ["passed"] * 3 + ["failed culprit"] + ["failed"] * 2


def heights(found):
    """Return where the marks of the layers stand, in percent, and of which kind they are."""
    places = [value for value in found.values("style") if value.startswith("bottom:")]
    marks = [value for value in found.values("class") if value.startswith("mark ")]
    count = len(found.values("title"))
    found_places = [float(place.removeprefix("bottom:")[:-1]) for place in places[-count:]]
    return list(zip(found_places, [mark.removeprefix("mark ") for mark in marks], strict=False))


def points(found, index):
    """Return the coordinates of one of the lines: limit, Keras, ONNX Runtime."""
    lines = found.values("points")[1:]  # the first is the surface of what is allowed
    return [tuple(map(float, point.split(","))) for point in lines[index].split()]


def test_marks_stand_at_the_logarithm_of_the_error():
    found = page(layers=layers(3, bad=2))
    low, high = -8, -3  # Keras's smallest error, and the largest of all
    expected = [(math.log10(row.onnx) - low) / (high - low) * 100 for row in layers(3, bad=2)]
    assert [place for place, _ in heights(found)] == pytest.approx(expected, abs=0.01)
    assert [kind for _, kind in heights(found)] == ["agrees", "agrees", "differs"]
    assert [100 - y for _, y in points(found, 2)] == pytest.approx(expected, abs=0.01)
    assert [x for x, _ in points(found, 2)] == pytest.approx([100 / 6, 50, 500 / 6], abs=0.01)
    assert points(found, 0)[0][1] < points(found, 1)[0][1]  # more is allowed than Keras's error


def test_first_bad_layer_is_flagged_once_and_named():
    found = Page(render_parity_page(faulty()))
    assert found.values("class").count("column first") == 1
    assert "first to differ: stage_9/block_110/conv" in found.text
    assert "70 differ; the first is number 111," in found.text


@pytest.mark.parametrize(("count", "named"), [(1, True), (3, True), (24, True), (25, False)])
def test_few_layers_are_named_and_many_are_numbered(count, named):
    text = render_parity_page(document(layers=layers(count)))
    labels = re.search(r'<div class="names[^"]*">(.*?)</div>', text)[1]
    found = Page(f"<p>{labels}</p>").words
    expected = [row.layer for row in layers(count)] if named else ["5", "10", "15", "20", "25"]
    assert found == expected


def test_many_layers_have_few_numbers_and_all_stand_in_the_table():
    for count in (26, 180, 999, 12345):
        step = parity_page._number_step(count)
        assert 2 <= count // step <= parity_page.MOST_NUMBERS
    assert Page(render_parity_page(faulty())).text.count("stage_14/block_179/conv") == 1


@pytest.mark.parametrize(("error", "place"), [(0.0, 0), (math.inf, 100), (math.nan, 100)])
def test_errors_without_a_logarithm_stand_at_an_end(error, place):
    found = layers(3, bad=1)
    odd = replace(found[1], onnx=error)
    assert heights(page(layers=(found[0], odd, found[2])))[1] == (place, "differs")


def test_limit_that_is_not_finite_allows_nothing():
    odd = replace(*layers(1), tolerance=math.nan)
    assert points(page(layers=(odd,)), 0) == [(0, 100), (100, 100)]


def test_line_leaves_out_what_is_rescaled():
    rows = layers(5)
    rescaled = replace(rows[2], status="rescaled", onnx=0.5)
    found = page(layers=(*rows[:2], rescaled, *rows[3:]))
    assert [x for x, _ in points(found, 2)] == [10, 30, 70, 90]
    assert heights(found)[2][1] == "rescaled"
    assert "holds the layer's output times a factor" in found.text


def test_folds_and_refusals_are_listed():
    text = page(fold=FOLD).text
    assert "1 folded, 1 left" in text
    stays = (
        "to fold it, take that tensor off the outputs: the tensor is a graph output (tensor 'y')"
    )
    assert f"head/scale Mul stays: {stays}" in text
    assert "stem/bn BatchNormalization backward into stem_conv" in text


def test_latency_is_told_in_ratios_to_the_first():
    text = page(latency=LATENCY).text
    assert "ratio median the file 1.000 2.000 ms nothing folded 1.500 3.000 ms" in text
    nothing = Latency(1, 0, 1, (Timing("a", math.nan, math.nan, math.nan),))
    assert "a NaN NaN ms" in page(latency=nothing).text


def test_hostile_names_are_escaped_everywhere():
    text = render_parity_page(hostile())
    assert_self_contained(text)
    assert Page(text).text.count("alert('1')") > 30
    assert "}}{{ 7 * 7 }}" in text
    assert " 49 " not in text


def test_page_of_a_real_check_shows_its_figures(files):
    model = keras.saving.load_model(files / "model.keras")
    report = check_parity(model, files / "model.onnx")
    origin = [SourceFile.of(files / name) for name in ("model.keras", "model.onnx")]
    made = ParityDocument(report, *origin, fold=None, latency=None, command="check", created="now")
    text = render_parity_page(made)
    assert_self_contained(text)
    words = Page(text).text
    assert words.index("agrees model.onnx computes what model.keras computes") < 100
    for row in report.outputs:
        assert f"on {row.case} inputs {error_figure(row.worst.max)}" in words
    assert all(file.sha256 in words for file in origin)


@pytest.mark.parametrize(("error", "verdict"), [(2e-7, "agrees"), (2e-3, "differs")])
def test_verdict_is_that_of_the_report(error, verdict):
    assert document(output(error)).verdict == verdict


def test_file_that_was_not_written_has_a_name():
    made = document()
    assert dataclasses.replace(made, file=None).file_name == made.file.name


def test_file_that_was_not_written_is_named():
    words = Page(render_parity_page(dataclasses.replace(faulty(), file=None))).text
    assert f"{faulty().file_name} does not compute what" in words
    assert f"{faulty().report.path} was not written, because it differs." in words


@pytest.mark.parametrize("made", [document(), faulty()], ids=["agrees", "differs"])
def test_page_needs_nothing_else(made):
    assert_self_contained(render_parity_page(made))
