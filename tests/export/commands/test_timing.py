"""`keras-bn bench`, in this process."""

import json

import keras
import numpy as np
import onnx
import pytest

import keras_bn
from keras_bn.export import export_onnx
from keras_bn.export.commands import benched
from keras_bn.export.commands import timing as bench
from keras_bn.export.commands.onnx_timing import bench_onnx
from keras_bn.export.files.provenance import versions
from keras_bn.export.stages.conversion import convert
from keras_bn.export.stages.converted import StageFiles
from tests.commands import assert_one_line
from tests.export.foreign_graphs import TORCH, foreign


@pytest.fixture
def timed(run):
    """Return a function that runs the command briefly."""
    return lambda path, *words: run("bench", path, "--seconds", 0.1, *words)


@pytest.fixture
def stages(tmp_path):
    """Return the stages of an export that has yet to be made."""
    return StageFiles(tmp_path, convert)


def test_keras_unfolded_and_folded_take_turns(timed, files):
    done = timed(files / "model.keras", "--batch-size", 4, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    latency = content["latency"]
    assert (content["schema"], content["path"]) == (1, str(files / "model.keras"))
    assert (latency["batch_size"], latency["threads"]) == (4, 1)
    assert latency["turns"] >= 9
    names = [row["name"] for row in latency["timings"]]
    assert names[0].startswith("Keras")
    assert names[1:] == ["ONNX Runtime, before folding", "ONNX Runtime, folded"]
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in latency["timings"])
    assert latency["timings"][-1]["ratio"] == 1.0
    assert len(content["fold"]["folds"]) == 5
    assert content["versions"]["keras"] == keras.__version__


@pytest.mark.smoke
def test_versions_are_those_of_the_imported_modules(monkeypatch):
    def not_found(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", not_found)  # as with tf-nightly
    monkeypatch.setattr(keras, "__version__", "3.99.0.dev1")
    told = versions()
    packages = {"keras-bn": keras_bn, "keras": keras, "numpy": np, "onnx": onnx}
    assert {name: told[name] for name in packages} == {
        name: module.__version__ for name, module in packages.items()
    }
    assert {*told} == {*packages, "python", "tensorflow", "onnxruntime"}


def test_text_says_that_it_is_of_this_machine(timed, files):
    done = timed(files / "model.keras", "--threads", 2)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{files / 'model.keras'}: 5 folded, 0 left")
    assert lines[1].split() == "ms for a batch median quartiles per second ratio".split()
    assert lines[4].startswith("ONNX Runtime, folded ")
    assert "This machine alone: " in done.stdout
    assert "2 threads, CPUExecutionProvider" in done.stdout
    assert timed(files / "model.keras", "--quiet").stdout == ""


def test_onnx_file_is_timed_against_its_folded_self(timed, tmp_path):
    onnx.save(foreign(TORCH), tmp_path / "model.onnx")
    before = (tmp_path / "model.onnx").read_bytes()
    content = json.loads(timed(tmp_path / "model.onnx", "--json").stdout)
    names = [row["name"] for row in content["latency"]["timings"]]
    assert names == ["ONNX Runtime, before folding", "ONNX Runtime, folded"]
    assert len(content["fold"]["folds"]) == 2
    assert (tmp_path / "model.onnx").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "model.onnx"]


def test_what_runs_is_before_folding_and_behind_it(files, stages, monkeypatch):
    operators = {}
    original = bench.runner_of

    def recorded(path, *rest):
        operators[path.stem] = [node.op_type for node in onnx.load(path).graph.node]
        return original(path, *rest)

    monkeypatch.setattr(bench, "runner_of", recorded)
    model = keras.models.load_model(files / "model.keras", compile=False)
    bench.bench_keras(model, files / "model.keras", stages, seconds=0.01)
    assert "BatchNormalization" in operators["layout"] or "Mul" in operators["layout"]
    assert not {"BatchNormalization", "Mul"} & set(operators["folding"])


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        pytest.param(
            "g (float[N,3,H,W] x) => (float[N,3,H,W] y) { y = Relu(x) }",
            [(2, 3, 32, 32)],
            id="free",
        ),
        pytest.param("g (float[5,3] x) => (float[5,3] y) { y = Relu(x) }", [(5, 3)], id="fixed"),
        pytest.param(
            "g (int64[N] x, bool[N] b) => (int64[N] y) { y = Where(b, x, x) }",
            [(2,), (2,)],
            id="others",
        ),
        pytest.param(
            "g (float[N,K] x) => (float[N,5] y) <float[96,5] w> { y = MatMul(x, w) }",
            [(2, 96)],
            id="tried",
        ),
    ],
)
def test_batches_are_of_the_declared_types(tmp_path, monkeypatch, text, shapes):
    seen = []
    monkeypatch.setattr(
        benched.OnnxRuntime, "runner", recording(benched.OnnxRuntime.runner, seen.append)
    )
    weights = {"w": (96, 5)} if "w>" in text else {}
    text = text.replace("<float[96,5] w> ", "")
    onnx.save(foreign(text, weights=weights), tmp_path / "model.onnx")
    found = bench_onnx(tmp_path / "model.onnx", batch_size=2, seconds=0.01)
    assert [array.shape for array in seen[-1]] == shapes
    assert found.latency.batch_size == shapes[0][0]
    for array in seen[-1]:
        assert array.dtype == np.float32 or set(array.tolist()) <= {0, 1}


def recording(runner, record):
    def recorded(self, *names):
        run = runner(self, *names)

        def of_batch(batch):
            record(batch)
            return run(batch)

        return of_batch

    return recorded


def test_what_cannot_be_timed_is_one_line(timed, files, tmp_path):
    assert_one_line(timed(tmp_path / "no.onnx"), "no such file")
    (tmp_path / "bad.onnx").write_bytes(b"\xff" * 50)
    assert_one_line(timed(tmp_path / "bad.onnx"), "bad.onnx")
    assert_one_line(timed(files / "model.keras", "--provider", "Nowhere"), "['Nowhere']")
    assert_one_line(timed(files / "model.onnx", "--unsafe"), "--unsafe must be left out")
    text = "g (float[N,K] x) => (float[N,5] y) { y = MatMul(x, w) }"
    onnx.save(foreign(text, weights={"w": (7, 5)}), tmp_path / "odd.onnx")
    assert_one_line(timed(tmp_path / "odd.onnx"), "must run on a drawn batch", "odd.onnx")


def test_model_of_several_arguments_and_outputs_is_timed(stages, tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((4,), batch_size=None, name="b")
    model = keras.Model({"a": a, "b": b}, [keras.layers.Dense(2)(a), keras.layers.Dense(2)(b)])
    found = bench.bench_keras(model, tmp_path / "model.keras", stages, batch_size=3, seconds=0.01)
    assert found.latency.batch_size == 3
    assert len(found.latency.timings) == 3


def test_file_with_its_channels_second_is_timed_on_the_same_batch(files, stages):
    model = keras.models.load_model(files / "model.keras", compile=False)
    file = files / "second.onnx"
    export_onnx(model, file, inputs_as_nchw="image", check=False)
    found = bench.bench_keras(
        model, files / "model.keras", stages, file=file, batch_size=2, seconds=0.01
    )
    assert len(found.latency.timings) == 3
