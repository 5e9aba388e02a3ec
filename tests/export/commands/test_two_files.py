"""`keras-bn check a.onnx b.onnx`, and the proof of `keras-bn fold`."""

import json
import subprocess
import sys

import numpy as np
import onnx
import pytest

from keras_bn.export import ExportError, fold_batch_norms
from tests.export.parity.graphs.test_check_files import changed, larger, network, parse

WITHOUT_KERAS = (
    "import sys; sys.argv = ['keras-bn', *sys.argv[1:]]\n"
    "from keras_bn.export.__main__ import main\n"
    "try: main()\n"
    "finally: print(*(p for p in ('tensorflow', 'keras', 'tf2onnx') if p in sys.modules))"
)


@pytest.fixture
def files(tmp_path):
    folded, _ = fold_batch_norms(network())
    paths = {name: tmp_path / f"{name}.onnx" for name in ("before", "after", "wrong")}
    onnx.save(network(), paths["before"])
    onnx.save(folded, paths["after"])
    onnx.save(changed(folded, (4, 4, 3, 3), larger), paths["wrong"])
    return paths


def test_files_that_agree_are_told_in_a_table(run, files):
    done = run("check", files["before"], files["after"])
    assert done.returncode == 0
    assert done.stdout.startswith("agrees: ")
    assert "first" in done.stdout
    assert "Keras" not in done.stdout


def test_files_that_differ_are_status_1_and_located(run, files):
    done = run("check", files["before"], files["wrong"], "--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["passed"] is False
    assert report["fault"]["value"] == "d"


def test_neither_keras_nor_tensorflow_is_imported(files):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_KERAS, "check", files["before"], files["after"]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--html", "page.html"], "--html must be left out where two ONNX files"),
        (["--precision", "float16"], "--precision must be left out"),
        (["--preprocess", "none"], "--preprocess must be left out"),
        (["--input-shape", "x=1x3x8x8"], "must be of inputs of the model, ['image']"),
        (["--input-shape", "image=1x3xa"], "--input-shape must be NAME=1x3x48x320"),
        (["--input-shape", "1x3x8x8"], "--input-shape must be NAME=1x3x48x320"),
        (["--input-shape", "image=0x3x8x8"], "Received: 'image=0x3x8x8'"),
        (["--range", "x=0:1"], "must be of inputs of the model"),
    ],
)
def test_options_that_do_not_fit_are_one_line(run, files, words, expected):
    done = run("check", files["before"], files["after"], *words)
    assert done.returncode == 2
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_missing_file_is_one_line(run, files, tmp_path):
    done = run("check", files["before"], tmp_path / "no.onnx")
    assert done.returncode == 2
    assert "must be a readable file" in done.stderr


def test_range_and_sizes_are_taken(run, files):
    words = ("--range", "0:1", "--input-shape", "image=1x3x20x30", "--json")
    report = json.loads(run("check", files["before"], files["after"], *words).stdout)
    assert report["drawn"] == {"image": "uniform in [0, 1], as stated"}
    assert report["samples"] == 5


def test_samples_of_a_file_are_taken(run, files, tmp_path, rng):
    np.save(tmp_path / "x.npy", rng.normal(size=(5, 3, 8, 8)).astype(np.float32))
    done = run("check", files["before"], files["after"], "--input", tmp_path / "x.npy", "--json")
    report = json.loads(done.stdout)
    assert report["passed"]
    assert report["outputs"][0]["case"] == "given"


def test_fold_tells_its_proof(run, files, tmp_path):
    done = run("fold", files["before"], tmp_path / "out.onnx", "--json")
    assert done.returncode == 0
    content = json.loads(done.stdout)
    assert content["parity"]["passed"]
    assert content["parity"]["path"] == str(tmp_path / "out.onnx")
    skipped = json.loads(
        run("fold", files["before"], tmp_path / "out.onnx", "--no-check", "--json").stdout
    )
    assert "parity" not in skipped


def test_fold_that_changes_the_model_writes_nothing(run, files, tmp_path, monkeypatch):
    import keras_bn.export.foreign.fold_opened as fold_opened

    fold, out = fold_opened.fold, tmp_path / "out.onnx"

    def wrong(model, **options):
        folded, report = fold(model, **options)
        value = next(v for v in folded.graph.initializers.values() if v.shape == (4, 4, 3, 3))
        value.const_value = type(value.const_value)(value.const_value.exact * 1.01, value.dtype)
        return folded, report

    monkeypatch.setattr(fold_opened, "fold", wrong)
    out.write_text("old")
    done = run("fold", files["before"], out)
    assert done.returncode == 1
    assert "must compute what the original does" in done.stderr
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert run("fold", files["before"], out, "--no-check").returncode == 0


def test_file_that_onnx_runtime_cannot_run_is_folded_without_a_proof(run, tmp_path):
    text = """g (float[N,4,8,8] x, float[3,4,3,3] w, float[3] k) => (float[N,3,6,6] y) {
        p = acme.Own(x) c = Conv(p, w) y = Mul(c, f) }"""
    model = parse(text, more=', "acme": 1')
    del model.graph.input[1:]
    for name, shape in (("w", (3, 4, 3, 3)), ("f", (3, 1, 1))):
        array = np.ones(shape, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "in.onnx")
    done = run("fold", tmp_path / "in.onnx", tmp_path / "out.onnx")
    if done.returncode:  # the rank of what Own returns may not be known, so that nothing folds
        assert done.returncode == 2
        assert "pass --no-check" in done.stderr
        assert not (tmp_path / "out.onnx").exists()
    done = run("fold", tmp_path / "in.onnx", tmp_path / "out.onnx", "--no-check")
    assert done.returncode == 0


def test_unknown_input_is_told_before_anything_runs(run, files, tmp_path):
    done = run("fold", files["before"], tmp_path / "out.onnx", "--input-shape", "x=1x3x8x8")
    assert done.returncode == 2
    assert "--input-shape must be of an input of IN.onnx, ['image']" in done.stderr
    with pytest.raises(ExportError):
        fold_batch_norms(tmp_path / "no.onnx", check=True)
