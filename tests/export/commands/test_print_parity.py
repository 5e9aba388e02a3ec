"""What a parity report looks like in a terminal, and in a pipe."""

import dataclasses
import io

import pytest
from rich.console import Console

from keras_bn.export.commands.print_parity import print_parity
from keras_bn.export.parity.report import (
    Errors,
    Fault,
    LayerParity,
    OutputParity,
    ParityReport,
    StageParity,
)


def errors(largest, rms=1e-8):
    return Errors(largest, rms, (rms,) * 4, (0, 2), 1.0, 1.0 + largest)


def output(name="probabilities", case="drawn", found=2e-7, **changes):
    row = OutputParity(
        name,
        case,
        "CPUExecutionProvider",
        "float64",
        6,
        3.0,
        errors(1e-7),
        errors(found),
        errors(1.5e-7),
        5e-8,
        tolerance=2.3e-6,
        rms_tolerance=2e-6,
        argmax_agreement=0.9999,
    )
    return dataclasses.replace(row, **changes)


def layer(number, status="agrees", onnx=1e-7):
    name = f"block/layer_{number}"
    return LayerParity(name, "Conv2D", f"{name}/out", (), 1.0, 1e-7, onnx, 2e-6, status)


def report(*outputs, **changes):
    drawn = {"image": "normal, mean 0 and deviation 1"}
    whole = ParityReport("resnet", "model.onnx", 3, 10, drawn, outputs or (output(),))
    return dataclasses.replace(whole, **changes)


def printed(found, *, terminal=False, width=80, **options):
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=terminal,
        color_system="standard" if terminal else "auto",
        **options,
    )
    print_parity(found, console)
    return console.file.getvalue()


def rows(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_verdict_comes_first_then_a_row_for_each_output_and_kind():
    lines = rows(printed(report(output(), output(case="out of range"), output("embedding"))))
    assert lines[0] == "agrees: model.onnx and model 'resnet'"
    assert lines[2] == "output inputs Keras plain optim. allowed RMS same"
    figures = "1.0e-07 2.0e-07 1.5e-07 2.3e-06 1.0e-08 99.9% agrees"
    assert lines[3:5] == [f"probabilities drawn {figures}", f"probabilities out of range {figures}"]
    assert lines[5].startswith("embedding drawn ")
    start = lines.index("10 samples (drawn, out of range), truth: float64")
    assert " ".join(lines[start + 1 : start + 3]) == (
        "drawn: as the inputs' distributions have it; "
        "out of range: ten times as far out as expected"
    )
    assert lines[-2:] == ["image: normal, mean 0 and deviation 1", "seed 3"]


def test_output_that_differs_is_explained_before_the_table():
    bad = output(case="constant", found=0.5, argmax_agreement=None)
    fault = Fault("folding", ("conv",), "conv/out", "folding is at fault, in conv")
    text = " ".join(rows(printed(report(output(), bad, fault=fault, notes=("look here",)))))
    assert text.startswith("DIFFERS: model.onnx and model 'resnet' folding is at fault, in conv ")
    assert "worst at [0, 2]: 1.5 instead of 1" in text
    assert "constant 1.0e-07 5.0e-01 1.5e-07 2.3e-06 1.0e-08 DIFFERS" in text
    assert text.endswith("seed 3 note: look here")


def test_providers_have_a_column_if_there_are_several():
    assert "CPUExecutionProvider" not in printed(report())
    other = output(provider="CUDAExecutionProvider")
    text = printed(report(output(), other), width=120)
    assert "provider" in text
    assert "CUDAExecutionProvider" in text


def test_stages_and_the_interesting_layers_are_listed():
    layers = [layer(i) for i in range(20)]
    layers[10], layers[15] = layer(10, "differs", 1e-3), layer(15, "differs", 0.5)
    layers[9] = layer(9, "rescaled", 1.0)
    stages = (
        StageParity("layout", 1e-7, "probabilities", True),
        StageParity("folding", 0.5, "probabilities", False),
    )
    lines = rows(printed(report(output(found=0.5), layers=tuple(layers), stages=stages), width=100))
    assert "layout probabilities 1.0e-07 agrees" in lines
    assert "folding probabilities 5.0e-01 DIFFERS" in lines
    start = lines.index("layer tensor Keras file allowed") + 1
    names = [line.split()[0] for line in lines[start : start + 8]]
    assert lines[start] == "... 7 more"
    assert names[1:5] == [f"block/layer_{i}" for i in (7, 8, 9, 10)]
    assert lines[start + 3].endswith(" rescaled")
    assert lines[start + 4].endswith(" DIFFERS")
    assert (names[6], lines[start + 5], lines[start + 7]) == (
        "block/layer_15",
        "... 4 more",
        "... 4 more",
    )


def test_layers_that_agree_show_the_worst_one():
    layers = (layer(0), layer(1, onnx=1.9e-6), layer(2, "rescaled", 1.0))
    text = printed(report(layers=layers))
    assert "layer_1" in text
    assert "layer_0" not in text


@pytest.mark.parametrize("width", [80, 100])
def test_plain_text_fits_its_width_with_nothing_lost(width):
    name = "a_name_of_forty_characters_that_is_long_"
    text = printed(report(output(name, argmax_agreement=1.0)), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "\x1b" not in text
    first = [line.split(" ")[0] for line in text.splitlines()[3:]]
    assert "".join(first).startswith(name)
    assert "100%" in text


def test_colour_is_for_a_terminal_that_wants_it():
    bad = report(output(found=0.5))
    assert "\x1b[1;31mDIFFERS" in printed(bad, terminal=True)
    assert "\x1b[1;32magrees" in printed(report(), terminal=True)
    assert "31m" not in printed(bad, terminal=True, no_color=True)


def test_names_from_strangers_are_not_obeyed():
    evil = "[bold]x[/bold]\x1b[2J\n[link=a]"
    found = report(
        output(evil, found=0.5),
        model=evil,
        path=evil,
        drawn={evil: evil},
        notes=(evil,),
        stages=(StageParity("file", 0.5, evil, False),),
        layers=(dataclasses.replace(layer(0), layer=evil, kind=evil, value=evil),),
        fault=Fault("file", (evil,), evil, evil),
    )
    text = printed(found, width=300)
    assert "\x1b" not in text
    assert text.count("[bold]x[/bold]?[2J [link=a]") >= 8
    assert not any(line.startswith("[link=a]") for line in text.splitlines())


def test_errors_without_bound_are_printed():
    bad = output(found=float("inf"), rms_tolerance=float("nan"))
    text = " ".join(rows(printed(report(bad))))
    assert "1.0e-07 inf 1.5e-07" in text
    assert "DIFFERS" in text
