import json

import pytest

from keras_bn.export import Fold, FoldReport, Reason, Refusal
from keras_bn.export.stages.folding.savings import saved_by
from tests.export.graphs import graph

REPORT = FoldReport(
    (
        Fold("bn1", "BatchNormalization", "conv/bn", "backward", ("conv",), (), 2_000_000, 8_000),
        Fold("mul", "Mul", None, "both", ("a", "b"), ("pool", "cut"), 500_000, 1_200_000),
        Fold("add", "Add", None, "forward", ()),
    ),
    (
        Refusal("bn2", "BatchNormalization", None, Reason.NOT_LINEAR, "Relu r"),
        Refusal(
            "n\n\x1b[2J", "Sub", None, Reason.SHIFT, "Gelu g", Reason.ZERO_PADDING, "Conv second"
        ),
    ),
)


def test_table_has_a_row_for_each_operator_and_the_totals():
    lines = REPORT.table().splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == [
        "operator", "BatchNormalization", "Mul", "Add", "BatchNormalization", "Sub", "3",
    ]  # fmt: skip
    assert lines[-1] == (
        "3 folded, 2 left; for one sample this saves about 2.50 M operations and 1.21 MB of "
        "memory traffic"
    )


def test_table_is_aligned():
    *rows, _ = REPORT.table().splitlines()
    heads = rows[0]
    places = [heads.index(word) for word in ("layer", "folded", "into,")]
    columns = [slice(*ends) for ends in zip(places, [*places[1:], None], strict=True)]
    cells = [[row[column].strip() for column in columns] for row in rows[1:]]
    texts = []
    for *names, text in cells:
        if any(names):
            texts.append([*names, text])
        else:
            texts[-1][-1] += f" {text}"
    reasons = f"{Reason.SHIFT} (Gelu g); behind it, {Reason.ZERO_PADDING} (Conv second)"
    assert texts == [
        ["conv/bn", "backward", "conv"],
        ["mul", "both", "a, b through pool, cut"],
        ["add", "forward", "nothing"],
        ["bn2", "left", f"to fold it, {REPORT.refusals[0].advice}: {Reason.NOT_LINEAR} (Relu r)"],
        ["n??[2J", "left", reasons],
    ]
    assert len(rows) == 10
    assert max(map(len, rows)) <= 100
    assert all(row == row.rstrip() for row in rows)


@pytest.mark.parametrize(
    ("operator", "reasons", "advice"),
    [
        ("BatchNormalization", [Reason.NEGATIVE_SCALE, Reason.NOT_LINEAR], "gamma at 0 or above"),
        ("BatchNormalization", [Reason.USED_ELSEWHERE, Reason.ZERO_PADDING], "padded operator"),
        ("BatchNormalization", [Reason.USED_ELSEWHERE], None),
        ("Add", [Reason.NOT_LINEAR, Reason.GRAPH_OUTPUT], "off the outputs"),
        ("Add", [Reason.NOT_LINEAR], None),
    ],
)
def test_line_begins_with_what_would_help(operator, reasons, advice):
    row = Refusal("n", operator, "bn", reasons[0], "here", *reasons[1:])
    assert (row.advice is None) == (advice is None)
    if advice is None:
        assert str(row) == f"{operator} bn: {row.why}"
    else:
        assert advice in row.advice
        assert str(row) == f"{operator} bn: to fold it, {row.advice}: {row.why}"


def test_table_counts_the_nodes_of_each_type_that_changes():
    report = FoldReport((), (), {"Add": 3, "Conv": 2, "Mul": 12}, {"Add": 4, "Conv": 2})
    lines = report.table().splitlines()
    assert [line.split() for line in lines[1:-2]] == [
        ["nodes", "before", "after"], ["Add", "3", "4"], ["Mul", "12", "0"], ["all", "17", "6"],
    ]  # fmt: skip
    assert report.to_dict()["after"] == {"Add": 4, "Conv": 2}


def test_replaceable_weights_are_told_once():
    report = FoldReport((), REPORT.refusals, replaceable=5)
    for text in (report.table(), str(report)):
        assert text.count("5 weights are inputs too") == 1
        assert "--freeze" in text


def test_table_of_nothing_is_the_totals_alone():
    table = FoldReport((), ()).table()
    assert table.startswith("0 folded, 0 left; ")
    assert "\n" not in table


def test_short_form_lists_what_is_left():
    lines = str(REPORT).splitlines()
    assert lines[0] == "3 affine operators folded (1 batch norm), 2 left (1 batch norm)"
    assert str(FoldReport((), ())) == "0 affine operators folded, 0 left"
    assert f"{lines[1]} {lines[2].strip()}" == (
        "  BatchNormalization bn2: to fold it, build the network with it directly behind a "
        "convolution or a dense layer: a nonlinear operator is in the way (Relu r)"
    )
    assert str(REPORT.folds[1]) == "Mul mul: both into a, b through pool, cut"


def test_short_form_tells_one_of_those_that_are_alike():
    report = FoldReport((), (*REPORT.refusals, *REPORT.refusals[:1] * 2))
    first, more, second, *rest = str(report).splitlines()[1:]
    assert f"{first} {more.strip()}" == f"  {REPORT.refusals[0]}; and 2 more like it"
    assert "n??[2J: " in second
    assert all(line.startswith("    ") for line in (more, *rest))


def test_long_lines_wrap_and_names_stay_whole():
    name = "x-/" * 40
    report = FoldReport((), (Refusal("n", "Sub", None, Reason.SHIFT, f"{name} y"),))
    assert str(report).splitlines()[1:] == [
        "  Sub n: an operator that only a scale can pass is in the way of a shift",
        f"    ({name}",
        "    y)",
    ]
    assert [line.strip() for line in report.table().splitlines()[2:4]] == [f"({name}", "y)"]


def test_report_is_json():
    content = json.loads(json.dumps(REPORT.to_dict()))
    assert (content["operations"], content["bytes"]) == (2_500_000, 1_208_000)
    assert content["refusals"][0]["reason"] == Reason.NOT_LINEAR


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("g (float[2,3] x, float[3] k) => (float[2,3] y) { y = Mul(x, k) }", (6, 48)),
        ("g (float[N,3] x, float[3] k) => (float[N,3] y) { y = Add(x, k) }", (3, 24)),
        ("g (float16[5] x, float16[1] k) => (float16[5] y) { y = Sub(x, k) }", (5, 20)),
        (
            "g (double[2,3,4] x, double[3] k) => (double[2,3,4] y)"
            "{ y = BatchNormalization(x, k, k, k, k) }",
            (48, 384),
        ),
    ],
    ids=["Mul", "dynamic batch", "float16", "BatchNormalization"],
)
def test_savings_follow_the_size_of_the_output(text, expected):
    assert saved_by(graph(text).graph[0]) == expected


def test_savings_of_an_unknown_shape_are_those_of_one_element():
    model = graph("g (float[2] x, float[2] k) => (float[2] y) { y = Mul(x, k) }")
    model.graph[0].outputs[0].shape = model.graph[0].outputs[0].type = None
    assert saved_by(model.graph[0]) == (1, 8)
