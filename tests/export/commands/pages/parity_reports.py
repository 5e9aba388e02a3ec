"""Parity reports made by hand: of outputs, stages and layers that agree, or that differ."""

from dataclasses import replace
from typing import get_args

from keras_bn.export.commands.pages.parity_page import ParityDocument
from keras_bn.export.files.provenance import SourceFile
from keras_bn.export.parity.array_errors import QUANTILES, Errors
from keras_bn.export.parity.report import (
    Fault,
    LayerParity,
    OutputParity,
    ParityReport,
    StageParity,
)
from keras_bn.export.runtime.latency import Latency, Timing
from keras_bn.export.stages.folding.reason import Reason
from keras_bn.export.stages.folding.report import Fold, FoldReport, Refusal
from tests.export.commands.pages.markup import EVIL

# The headings of a page that has all its parts, behind the verdict.
SECTIONS = [
    "What comes out",
    "Stage by stage",
    "Layer by layer",
    "What was folded",
    "How long a run takes",
    "Notes",
    "How to repeat it",
]
STAGES = get_args(StageParity.__annotations__["stage"])
FOLD = FoldReport(
    folds=(Fold("bn_node", "BatchNormalization", "stem/bn", "backward", ("stem_conv",)),),
    refusals=(Refusal("node", "Mul", "head/scale", Reason.GRAPH_OUTPUT, "tensor 'y'"),),
)
LATENCY = Latency(
    32, 50, 1, (Timing("the file", 2.0, 1.9, 2.2), Timing("nothing folded", 3.0, 2.9, 4.0))
)


def errors(largest, *, index=(1, 3), expected=1.5, found=1.25):
    """Return errors up to one."""
    quantiles = tuple(largest * share for share in QUANTILES)
    return Errors(largest, largest / 4, quantiles, index, expected, found)


def output(onnx=2e-7, *, name="logits", case="drawn", **changes):
    """Return an output, of which 1e-6 is allowed."""
    row = OutputParity(
        name,
        case,
        "CPUExecutionProvider",
        "float64",
        samples=6,
        scale=12.5,
        keras=errors(1e-7),
        onnx=errors(onnx),
        optimised=errors(onnx / 2),
        difference=onnx / 2,
        tolerance=1e-6,
        rms_tolerance=1e-6,
    )
    return replace(row, **changes)


def layers(count, *, bad=None):
    """Return layers whose errors double every 20 layers, and are 1e-3 from `bad` on."""
    return tuple(
        LayerParity(
            f"stage_{i // 12}/block_{i}/conv",
            "Conv2D",
            f"tensor_{i}",
            (f"stage_{i // 12}/block_{i}/bn",),
            scale=3.0,
            keras=1e-8 * 2 ** (i / 20),
            onnx=1e-3 if bad is not None and i >= bad else 2e-8 * 2 ** (i / 20),
            tolerance=1e-6 * 2 ** (i / 20),
            status="differs" if bad is not None and i >= bad else "agrees",
        )
        for i in range(count)
    )


def stages(first_bad=None):
    """Return all stages, which differ from one on."""
    bad = STAGES.index(first_bad) if first_bad else len(STAGES)
    return tuple(
        StageParity(name, 2e-3 if i >= bad else 2e-7, "logits", i < bad)
        for i, name in enumerate(STAGES)
    )


def fault(*paths, stage="folding", value="tensor_1", detail="It is wrong behind the folding."):
    """Return a fault in some layers."""
    return Fault(stage, paths, value, detail)


def document(*outputs, fold=None, latency=None, command=None, files=None, **changes):
    """Return a document of a report on `runs/net.keras` and `runs/net.onnx`."""
    values = {
        "model": "net",
        "path": "runs/net.onnx",
        "seed": 7,
        "samples": 6,
        "drawn": {"image": "normal, mean 0 and deviation 1"},
        "versions": {"keras-bn": "0.1.0"},
        **changes,
    }
    model, file = files or (
        SourceFile("runs/net.keras", 12345, "ab" * 32),
        SourceFile("runs/net.onnx", 678, "cd" * 32),
    )
    return ParityDocument(
        ParityReport(outputs=outputs or (output(),), **values),
        model,
        file,
        fold,
        latency,
        command=command or "keras-bn check runs/net.keras runs/net.onnx --seed 7",
        created="2025-01-01 00:00 UTC",
    )


def faulty(count=180, bad=110):
    """Return a document with all its parts, of a file whose layers differ from `bad` on."""
    found = layers(count, bad=bad)
    return document(
        output(2e-3),
        output(name="embedding"),
        layers=found,
        stages=stages("folding"),
        fault=fault(found[bad].layer, *found[bad].folded, value=found[bad].value),
        notes=("Note this.",),
        fold=FOLD,
        latency=LATENCY,
    )


def hostile():
    """Return a document whose every text is meant to break a page."""
    names = [EVIL, "}}{{ 7 * 7 }}", "long_" * 80, "\u202egnp.exe"]
    named = tuple(
        replace(row, layer=name, folded=(name,), kind=EVIL, value=EVIL)
        for row, name in zip(layers(4, bad=2), names, strict=True)
    )
    return document(
        *(output(2e-3, name=name, provider=name, case=name, reference=name) for name in names),
        layers=named,
        stages=tuple(replace(row, output=EVIL) for row in stages("folding")),
        fault=fault(*names, value=EVIL, detail=EVIL),
        fold=replace(
            FOLD,
            folds=tuple(replace(row, layer=EVIL, into=(EVIL,)) for row in FOLD.folds),
            refusals=tuple(replace(row, detail=EVIL) for row in FOLD.refusals),
        ),
        latency=Latency(1, 1, 1, (Timing(EVIL, 1.0, 1.0, 1.0),)),
        notes=(EVIL, f"`{EVIL}`"),
        drawn={EVIL: EVIL},
        versions={EVIL: EVIL},
        command=EVIL,
        files=(SourceFile(EVIL, 1, EVIL), SourceFile("e" * 300 + ".onnx", 1, EVIL)),
    )
