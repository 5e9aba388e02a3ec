"""`keras-bn fold`, in this process where that will do."""

import json
import re
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from keras_bn.export import ExportError
from keras_bn.export.__main__ import program
from keras_bn.export.files import onnx_file as saving
from keras_bn.export.parity.graphs import latencies
from keras_bn.export.runtime.latency import FOLDED, UNFOLDED, Latency, Timing
from tests.export.foreign.test_foreign import with_sparse_initializer
from tests.export.foreign.test_weight_files import save
from tests.export.foreign_graphs import TORCH, conv_bn, foreign, outputs, serialised
from tests.tolerances import assert_close


def fold(*words):
    """Run the command; return what it prints. What it raises `cli.run` turns into one line."""
    done = CliRunner().invoke(program(), ["fold", *map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0
    return done.stdout


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "in.onnx"
    onnx.save(foreign(TORCH), path)
    return path


@pytest.fixture
def x(rng):
    return rng.normal(size=(2, 3, 8, 8)).astype(np.float32)


def run(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_writes_a_valid_file_and_prints_a_table(path, tmp_path, x):
    before, out = path.read_bytes(), tmp_path / "out.onnx"
    lines = fold(path, out).splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["operator", "BatchNormalization", "Mul"]
    assert lines[-2].startswith("2 folded, 0 left")
    sizes = f"{out.stat().st_size:,} bytes, {path.stat().st_size:,} before"
    assert lines[-1].startswith(f"{out}: {sizes}; agrees in ONNX Runtime: largest error ")
    onnx.checker.check_model(out, full_check=True)
    assert_close(run(out, x), outputs(onnx.load(path), x=x)[0])
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path, out]


def test_json(path, tmp_path):
    out = tmp_path / "out.onnx"
    content = json.loads(fold(path, out, "--json"))
    assert content["path"] == str(path)
    assert content["out"] == str(out)
    assert content["size"] == path.stat().st_size
    assert content["out_size"] == out.stat().st_size
    assert [row["operator"] for row in content["folds"]] == ["BatchNormalization", "Mul"]
    assert content["refusals"] == []


def test_freeze(tmp_path):
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(conv_bn(weights_as_inputs=True), path)
    assert "5 weights are inputs too" in fold(path, out)
    assert len(onnx.load(out).graph.input) == 6
    assert "inputs too" not in fold(path, out, "--freeze")
    assert [value.name for value in onnx.load(out).graph.input] == ["x"]


@pytest.fixture
def timed(monkeypatch):
    """Return what is timed, by name, each with its outputs; the clock is left out."""
    found = {}

    def run_once(contestants, *, batch_size, threads, seconds):
        found.update({name: function() for name, function in contestants.items()})
        rows = tuple(Timing(name, 2.0, 1.0, 3.0, 1.0) for name in contestants)
        return Latency(batch_size, 9, threads, rows)

    monkeypatch.setattr(latencies, "measure_latency", run_once)
    return found


@pytest.mark.parametrize("check", ["--check", "--no-check"])
def test_time_is_of_both_files_on_a_batch_of_the_check(path, tmp_path, timed, check):
    content = json.loads(fold(path, tmp_path / "out.onnx", "--time", "--json", check))
    latency = content["latency"]
    assert (latency["batch_size"], latency["threads"]) == (1, 1)
    assert [row["name"] for row in latency["timings"]] == [*timed] == [UNFOLDED, FOLDED]
    (before,), (after,) = timed.values()
    assert before.shape == (1, 5)
    assert_close(after, before)
    assert ("parity" in content) == (check == "--check")


def test_time_is_of_the_file_that_was_made(tmp_path, timed):
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path, nodes in zip(paths, ["y = Neg(x)", "y = Abs(x)"], strict=True):
        onnx.save(foreign(f"g (float[N,W] x) => (float[N,W] y) {{ {nodes} }}"), path)
    given = np.float32([[-1, 2], [3, 4]])
    assert latencies.time_fold(*paths, inputs=given).batch_size == 1
    np.testing.assert_array_equal(timed[UNFOLDED], [[[1, -2]]])
    np.testing.assert_array_equal(timed[FOLDED], [[[1, 2]]])
    latencies.time_fold(*paths, input_shapes={"x": [5, 7]})
    assert timed[FOLDED][0].shape == (5, 7)


def test_time_is_measured_and_printed(path, tmp_path):
    words = ["--time", "--input-shape", "x=3x3x8x8"]
    lines = fold(path, tmp_path / "out.onnx", *words).splitlines()
    heads = [line.split()[:2] for line in lines[-6:-3]]
    assert heads == [["ms", "for"], ["ONNX", "Runtime,"], ["ONNX", "Runtime,"]]
    assert lines[-4].split()[-1] == "1.00"
    assert lines[-3].startswith("Batches of 3 samples, ")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--dry-run"], "--time must be left out where nothing is written"),
        (["--no-check", "--input-shape", "y=1x3x8x8"], "must be of an input of IN.onnx, ['x']"),
        (["--no-check", "--input-shape", "x=1x4x8x8"], "must fit input 'x'"),
        (["--input", "x.npy", "--input-shape", "x=1x3x8x8"], "--input-shape must be left out"),
    ],
)
def test_what_cannot_be_timed_leaves_no_file(path, tmp_path, words, expected, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=re.escape(expected)):
        fold(path, tmp_path / "out.onnx", "--time", *words)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("words", [(), ("out.onnx",)])
def test_dry_run_writes_nothing(path, tmp_path, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fold(path, *words, "--dry-run").endswith("nothing was written\n")
    content = json.loads(fold(path, *words, "--dry-run", "--json"))
    assert (content["out"], content["out_size"], len(content["folds"])) == (None, None, 2)
    assert list(tmp_path.iterdir()) == [path]


def test_model_in_which_nothing_folds_is_copied(path, tmp_path):
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    fold(path, first)
    assert "a copy, nothing was folded" in fold(first, second)
    assert first.read_bytes() == second.read_bytes()


def test_model_that_onnx_ir_cannot_hold_is_copied(tmp_path):
    proto = conv_bn()
    with_sparse_initializer(proto)
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    path.write_bytes(serialised(proto))
    printed = fold(path, out)
    assert "the model holds sparse tensors" in printed
    assert out.read_bytes() == path.read_bytes()


def with_large_weight():
    """Return a model whose batch norm folds, and which has a weight that does not change."""
    proto = conv_bn()
    kept = onnx.numpy_helper.from_array(np.linspace(0, 1, 1000, dtype=np.float32), "kept")
    proto.graph.initializer.append(kept)
    proto.graph.node.add(op_type="Exp", input=["kept"], output=["z"])
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, [1000]))
    return proto


def without_folds():
    text = "g (float[2,3,8,8] x) => (float[2,3,8,8] y) { r = Relu(x) y = Pow(r, k) }"
    return foreign(text, weights={"k": (2, 3, 8, 8)})


@pytest.mark.parametrize("build", [with_large_weight, without_folds])
def test_weights_in_a_file_stay_in_one(tmp_path, build, x):
    inner = tmp_path / "inner"
    inner.mkdir()
    path, out = save(build(), inner), tmp_path / "out.onnx"
    expected = outputs(onnx.load(path), x=x)
    fold(path, out)
    onnx.checker.check_model(out, full_check=True)
    (inner / "weights.bin").unlink()
    tensors = {t.name: t for t in onnx.load(out, load_external_data=False).graph.initializer}
    large = tensors["kept" if "kept" in tensors else "k"]
    assert (tmp_path / large.external_data[0].value).is_file()
    for actual, truth in zip(outputs(onnx.load(out), x=x), expected, strict=True):
        assert_close(actual, truth, 1e-6)


def test_weights_that_do_not_fit_one_file_go_to_another(path, tmp_path, monkeypatch, x):
    out, expected = tmp_path / "out.onnx", run(path, x)
    proto = onnx.load(path)
    big = onnx.numpy_helper.from_array(np.zeros((5, 100), np.float32), "big")
    proto.graph.initializer.append(big)
    proto.graph.node.add(op_type="MatMul", input=["y", "big"], output=["z"])
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", 1, ["batch", 100]))
    onnx.save(proto, path)
    monkeypatch.setattr(saving, "LARGEST_FILE", saving.FOR_METADATA + 1000)
    fold(path, out)
    assert len(list(tmp_path.iterdir())) == 3
    assert_close(run(out, x), expected)


def test_input_is_never_overwritten(path, tmp_path):
    (tmp_path / "link.onnx").symlink_to(path)
    before = path.read_bytes()
    for out in (path, tmp_path / "link.onnx"):
        with pytest.raises(ExportError, match=r"OUT\.onnx must be another file than IN\.onnx"):
            fold(path, out)
    assert path.read_bytes() == before


def test_out_is_needed(path):
    with pytest.raises(ExportError, match=r"OUT\.onnx must be given\. Received: none\."):
        fold(path)


@pytest.mark.parametrize("target", ["no/out.onnx", "in.onnx/out.onnx", "."])
def test_unwritable_target(path, tmp_path, target):
    with pytest.raises(ExportError, match=r"existing, writable folder|another file"):
        fold(path, tmp_path / target)


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 50], ids=["missing", "empty", "garbage"])
def test_broken_input_leaves_the_target(tmp_path, content):
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    if content is not None:
        path.write_bytes(content)
    out.write_text("old")
    with pytest.raises(ExportError, match=r"in\.onnx"):
        fold(path, out)
    assert out.read_text() == "old"
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


def test_model_that_the_checker_refuses_is_not_copied(tmp_path):
    path, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    proto = foreign("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    proto.graph.node[0].op_type = "NoSuchOperator"
    path.write_bytes(serialised(proto))
    with pytest.raises(ExportError, match=r"Received: '.*in\.onnx': .*NoSuchOperator"):
        fold(path, out)
    assert not out.exists()


def test_what_the_proof_rests_on_is_told(path, tmp_path):
    proto = onnx.load(path)
    proto.graph.node[-1].output[0] = "before"
    proto.graph.node.append(onnx.helper.make_node("RandomNormalLike", ["before"], ["noise"]))
    proto.graph.node.append(onnx.helper.make_node("Add", ["before", "noise"], ["y"]))
    onnx.save(proto, path)
    last = fold(path, tmp_path / "out.onnx").splitlines()[-1]
    assert last.startswith("note: ")
    assert "random numbers" in fold(path, tmp_path / "out.onnx")


def test_outputs_without_a_shape_get_theirs(path, tmp_path, x):
    """ONNX Runtime takes them, and writes them itself; onnx.checker does not."""
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, path)
    fold(path, tmp_path / "out.onnx")
    onnx.checker.check_model(tmp_path / "out.onnx", full_check=True)
    assert_close(run(tmp_path / "out.onnx", x), run(path, x))


def test_shapes_that_contradict_each_other_are_told_of_the_file_that_has_them(path, tmp_path):
    proto = onnx.load(path)
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 6
    onnx.save(proto, path)
    with pytest.raises(
        ExportError, match=r"^fold: the model must be .*'.*in\.onnx': .*\(5\) vs \(6\)"
    ):
        fold(path, tmp_path / "out.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["in.onnx"]


def test_command_needs_no_tensorflow_and_tells_a_mistake_in_one_line(path, tmp_path):
    code = (
        "import sys; sys.argv = ['keras-bn', 'fold', *sys.argv[1:]]\n"
        "from keras_bn.export.__main__ import main\n"
        "try: main()\n"
        "finally: print(*(p for p in ('tensorflow', 'keras', 'tf2onnx') if p in sys.modules))"
    )
    done, failed = (
        subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
        )
        for words in ((path, tmp_path / "out.onnx"), (tmp_path / "no.onnx", "--dry-run"))
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == ""
    assert failed.returncode == 2
    assert failed.stderr.count("\n") == 1
    assert failed.stderr.startswith("keras-bn: IN.onnx must be a readable file. Received: ")


def test_quiet_writes_the_file_and_no_word(path, tmp_path):
    assert fold(path, tmp_path / "out.onnx", "--quiet") == ""
    assert (tmp_path / "out.onnx").exists()
    assert json.loads(fold(path, "--dry-run", "--json", "--quiet"))["path"] == str(path)
