"""`keras-bn inspect | recalibrate`: in this process where that shows as much, for speed."""

import json
import os
import shutil
import signal
import subprocess
import time
import zipfile

import keras
import numpy as np
import pytest

import keras_bn
from keras_bn.export import ExportError
from keras_bn.export.files.keras_file import open_keras_file
from tests.commands import TOOL, assert_one_line, tool


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory):
    """The files of a network after 8 steps with momentum 0.99, and of its data."""
    keras.utils.set_random_seed(0)
    folder, rng = tmp_path_factory.mktemp("trained"), np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, (128, 4)).astype(np.float32)
    y = (x.sum(1) > 12).astype(np.float32)
    features = keras.Input((4,), name="features")
    hidden = keras_bn.BatchNormalization(momentum=0.99, name="first")(features)
    hidden = keras.layers.Dense(6, name="dense")(hidden)
    hidden = keras_bn.BatchNormalization(momentum=0.99, name="second")(hidden)
    model = keras.Model(features, keras.layers.Dense(1, name="score")(hidden))
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=16, verbose=0)
    model.save(folder / "model.keras")
    np.savez(folder / "data.npz", features=x, y=y)
    return folder


@pytest.fixture
def trained(trained_once, tmp_path):
    """The model and its data, and the folder that they are in."""
    for name in ("model.keras", "data.npz"):
        shutil.copy(trained_once / name, tmp_path)
    return (
        keras.models.load_model(tmp_path / "model.keras"),
        np.load(tmp_path / "data.npz")["features"],
        tmp_path,
    )


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def state(model):
    """Return a model's weights by path, with those of its optimizer."""
    variables = [*model.variables, *model.optimizer.variables]
    return {v.path: keras.ops.convert_to_numpy(v) for v in variables}


def test_inspect_says_the_verdict_first(run, trained):
    _, _, folder = trained
    done = run("inspect", folder / "model.keras", "--data", folder / "data.npz")
    assert (done.returncode, done.stderr) == (0, "")
    first, counts, cause = done.stdout.splitlines()[:3]
    assert first == "model.keras on data.npz: 1 cause for concern"
    assert counts == "128 samples in 4 batches of 32, 0 batches skipped"
    assert cause == f"* {keras_bn.Cause.MOMENTUM_TOO_HIGH}: first, second"
    assert "after 8 steps with momentum 0.99" in done.stdout
    assert "loss: " in done.stdout
    assert "2 layers measured" in done.stdout


def test_inspect_prints_one_json_object_and_nothing_else(trained):
    model, x, folder = trained
    done = tool("inspect", folder / "model.keras", "--data", folder / "data.npz", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    gap = keras_bn.train_inference_gap(model, x, verbose=0)
    found = [layer["gap"] for layer in report["gap"]["layers"]]
    np.testing.assert_allclose(found, [layer.gap for layer in gap.layers], rtol=1e-4)
    assert report["verdict"] == "1 cause for concern"
    assert report["gap"]["loss_with_stored_statistics"] > 0
    assert (report["inputs"], report["targets"], report["batch_size"]) == (["features"], ["y"], 32)
    assert len(report["shift"]["layers"]) == 2
    assert report["command"].startswith("keras-bn inspect ")


def test_json_is_valid_where_figures_are_not_finite(run, trained):
    model, _, folder = trained
    model.get_layer("second").moving_mean.assign(np.full(6, np.nan))
    model.save(folder / "model.keras")
    done = run("inspect", folder / "model.keras", "--data", folder / "data.npz", "--json")
    assert done.returncode == 0
    gap = json.loads(done.stdout, parse_constant=pytest.fail)["gap"]
    assert gap["layers"][1]["gap"] is None
    assert gap["diagnoses"][0]["cause"] == keras_bn.Cause.NOT_FINITE


def test_inspect_writes_a_page(run, trained):
    _, _, folder = trained
    page = folder / "page.html"
    done = run(
        "inspect", folder / "model.keras", "--data", folder / "data.npz", "--html", page, "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"--html {page}" in json.loads(done.stdout)["command"]
    assert "<title>model.keras: 1 cause for concern</title>" in page.read_text(encoding="utf-8")
    assert files(folder) == ["data.npz", "model.keras", "page.html"]


def test_batch_with_nan_is_skipped_and_counted(run, trained):
    _, x, folder = trained
    x[40, 0], x[100, 1] = np.nan, np.inf
    np.savez(folder / "data.npz", x=x)
    done = run("inspect", folder / "model.keras", "--data", folder / "data.npz")
    assert done.returncode == 0
    assert "64 samples in 2 batches of 32, 2 batches skipped" in done.stdout
    assert "the data file has no targets" in done.stdout


def own_loss(y, prediction):
    return keras.ops.mean(keras.ops.square(y - prediction))


def test_loss_that_is_not_known_leaves_the_rest(run, trained):
    model, _, folder = trained
    model.compile("adam", own_loss)
    model.save(folder / "model.keras")
    done = run("inspect", folder / "model.keras", "--data", folder / "data.npz")
    assert done.returncode == 0
    assert "The loss is not compared: its loss and optimizer cannot be restored" in done.stdout
    assert "own_loss" in done.stdout


def test_model_without_a_loss_is_inspected_all_the_same(run, trained):
    model, _, folder = trained
    model.compile("adam")
    model.save(folder / "model.keras")
    done = run("inspect", folder / "model.keras", "--data", folder / "data.npz")
    assert done.returncode == 0
    assert "the model was compiled without a loss" in done.stdout


def test_options_and_data_are_refused_in_one_line(run, trained):
    _, x, folder = trained
    y = np.zeros((128, 7))
    for words, arrays, message in (
        (["--batch-size", 0], {"x": x}, "`batch_size` must be an int >= 1"),
        ([], {"x": x[:, :2]}, "Received: float32 of shape (128, 2)"),
        ([], {"x": x, "y": y[1:]}, "Received: 128 in 'x', 127 in 'y'"),
        ([], {"x": np.array([{}])}, "numpy.savez"),
        ([], {"a": x, "b": x}, "Received: arrays ['a', 'b']"),
        ([], {"x": x, "y": np.zeros((128, 7, 5))}, "the model's loss must be defined"),
        ([], {"x": x * np.nan}, "none of them usable"),
    ):
        np.savez(folder / "data.npz", **arrays)
        page = folder / "page.html"
        words = ["inspect", folder / "model.keras", "--data", folder / "data.npz", *words]
        assert_one_line(run(*words, "--html", page), message)
        assert files(folder) == ["data.npz", "model.keras"]


def test_value_that_a_layer_refuses_is_one_line(run, tmp_path):
    word = keras.Input((2,), dtype="int32", name="word")
    output = keras_bn.BatchNormalization()(keras.layers.Embedding(10, 3)(word))
    keras.Model(word, output).save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=np.full((40, 2), 9) + np.eye(40, 2, -38, dtype=int) * 90)
    done = run("inspect", tmp_path / "model.keras", "--data", tmp_path / "data.npz")
    assert_one_line(done, "Received: InvalidArgumentError: indices[6,0] = 99 is not in [0, 10).")


def test_recalibrate_changes_the_statistics_and_nothing_else(run, trained):
    model, x, folder = trained
    before = (folder / "model.keras").read_bytes()
    done = run(
        "recalibrate", folder / "model.keras", folder / "new.keras", "--data", folder / "data.npz"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 layers have new statistics, 0 left alone; 128 samples in 4 batches" in done.stdout
    assert f"{folder / 'new.keras'}: " in done.stdout
    old, new = state(model), state(keras.models.load_model(folder / "new.keras"))
    assert old.keys() == new.keys()
    moved = {path for path in old if not np.array_equal(old[path], new[path])}
    assert moved == {
        f"{layer}/{name}"
        for layer in ("first", "second")
        for name in ("moving_mean", "moving_variance")
    }
    np.testing.assert_allclose(new["first/moving_mean"], x.astype(float).mean(0), rtol=1e-5)
    variances = x.astype(float).reshape(4, 32, 4).var(1, ddof=1).mean(0)
    np.testing.assert_allclose(new["first/moving_variance"], variances, rtol=1e-5)
    assert (folder / "model.keras").read_bytes() == before
    assert files(folder) == ["data.npz", "model.keras", "new.keras"]


def test_strength_adapts_part_of_the_way(run, trained):
    model, x, folder = trained
    words = ["recalibrate", folder / "model.keras", folder / "new.keras"]
    words += ["--data", folder / "data.npz", "--sequential", "--batch-size", 64, "--json"]
    done = run(*words, "--strength", 0.25)
    report = json.loads(done.stdout)
    assert [layer["layer"] for layer in report["report"]["layers"]] == ["first", "second"]
    assert report["command"].endswith("--sequential --batch-size 64 --json --strength 0.25")
    old, new = state(model), state(keras.models.load_model(folder / "new.keras"))
    expected = 0.75 * old["first/moving_variance"] + 0.25 * x.astype(float).var(0, ddof=1)
    np.testing.assert_allclose(new["first/moving_variance"], expected, rtol=1e-5)


def test_frozen_layers_are_left_alone_unless_asked_for(run, trained):
    model, _, folder = trained
    model.trainable = False
    model.compile("adam", "mse")
    model.save(folder / "model.keras")
    words = ["recalibrate", folder / "model.keras", folder / "new.keras"]
    words += ["--data", folder / "data.npz"]
    assert_one_line(run(*words), "first: it is frozen", "--include-frozen")
    assert files(folder) == ["data.npz", "model.keras"]
    assert "2 layers have new statistics" in run(*words, "--include-frozen").stdout


def test_optimizer_that_cannot_be_kept_is_noted(run, trained):
    model, _, folder = trained
    model.compile("adam", own_loss)
    model.save(folder / "model.keras")
    words = ["recalibrate", folder / "model.keras", folder / "new.keras"]
    done = run(*words, "--data", folder / "data.npz")
    assert done.returncode == 0
    assert "The new file: its loss and optimizer cannot be restored" in done.stdout
    assert not keras.models.load_model(folder / "new.keras").compiled


def test_refused_recalibration_leaves_the_old_file(run, trained):
    _, _, folder = trained
    (folder / "new.keras").write_text("old")
    words = ["recalibrate", folder / "model.keras", folder / "new.keras"]
    words += ["--data", folder / "data.npz"]
    assert_one_line(run(*words, "--variance", "median"), "Received: variance='median'")
    assert_one_line(run(*words, "--strength", "nan"), "Received: strength=nan")
    assert_one_line(run(*words, "--batch-size", "-1"), "Received: batch_size=-1")
    assert (folder / "new.keras").read_text() == "old"
    assert files(folder) == ["data.npz", "model.keras", "new.keras"]


def test_full_disk_is_one_line(run, trained, monkeypatch):
    def save(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras.Model, "save", save)
    _, _, folder = trained
    words = ["recalibrate", folder / "model.keras", folder / "new.keras"]
    assert_one_line(run(*words, "--data", folder / "data.npz"), "No space left on device")
    assert files(folder) == ["data.npz", "model.keras"]


@pytest.mark.parametrize("name", ["model.keras", "link.keras", "hard.keras", "data.npz"])
def test_nothing_that_is_read_is_overwritten(run, files_alone, name):
    (files_alone / "link.keras").symlink_to(files_alone / "model.keras")
    os.link(files_alone / "model.keras", files_alone / "hard.keras")
    before = (files_alone / name).read_bytes()
    model, data, target = (files_alone / n for n in ("model.keras", "data.npz", name))
    for done, what in (
        (run("recalibrate", model, target, "--data", data), "OUT.keras must be another file"),
        (run("inspect", model, "--data", data, "--html", target), "OUT.html must be another file"),
    ):
        assert_one_line(done, what)
        assert target.read_bytes() == before


@pytest.fixture
def files_alone(tmp_path):
    """Files that look right before TensorFlow is imported."""
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        for name in ("config.json", "model.weights.h5"):
            archive.writestr(name, "{}")
    np.savez(tmp_path / "data.npz", x=np.zeros((2, 2)))
    return tmp_path


def test_paths_are_checked_without_tensorflow(files_alone, tmp_path):
    (tmp_path / "shim").mkdir()
    for package in ("tensorflow", "keras"):
        (tmp_path / "shim" / f"{package}.py").write_text("raise SystemExit(77)")
    model, data, page = (files_alone / name for name in ("model.keras", "data.npz", "no/page.html"))
    for words, message in (
        (["inspect", tmp_path / "no.keras", "--data", data], "no such file"),
        (["inspect", model, "--data", tmp_path], "it is a folder"),
        (["inspect", model, "--data", data, "--html", page], "existing, writable folder"),
        (["recalibrate", model, tmp_path / "out.h5", "--data", data], "must end in .keras"),
        (["recalibrate", model, tmp_path / "no" / "a.keras", "--data", data], "writable folder"),
        (["recalibrate", model, tmp_path / "a.keras", "--data", model], "numpy.savez"),
    ):
        assert_one_line(tool(*words, PYTHONPATH=str(tmp_path / "shim")), message)
    for command in ("inspect", "recalibrate"):
        assert tool(command, "--help", PYTHONPATH=str(tmp_path / "shim")).returncode == 0


def test_missing_page_extra_is_one_line(files_alone):
    (files_alone / "jinja2.py").write_text("raise ModuleNotFoundError(name='jinja2')")
    words = ["inspect", files_alone / "model.keras", "--data", files_alone / "data.npz"]
    done = tool(*words, "--html", files_alone / "page.html", PYTHONPATH=str(files_alone))
    assert_one_line(done, "'jinja2'", "pip install 'keras-bn[report]'")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_recalibration_leaves_the_old_file(files_alone, number):
    (files_alone / "new.keras").write_text("old")
    before = files(files_alone)
    command = [TOOL, "recalibrate", files_alone / "model.keras", files_alone / "new.keras"]
    command += ["--data", files_alone / "data.npz"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and files(files_alone) == before:
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(timeout=60) == (143 if number == signal.SIGTERM else -signal.SIGKILL)
    assert (files_alone / "new.keras").read_text() == "old"
    if number == signal.SIGTERM:
        assert files(files_alone) == before


def test_quiet_does_the_work_and_says_no_word(run, trained):
    _, _, folder = trained
    data = ["--data", folder / "data.npz", "--quiet"]
    page, new = folder / "page.html", folder / "new.keras"
    for words in (["inspect", "--html", page], ["recalibrate", new]):
        done = run(words[0], folder / "model.keras", *words[1:], *data)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert page.exists()
    assert new.exists()


def test_compiled_model_is_loaded_with_its_steps(trained):
    _, _, folder = trained
    model, missing = open_keras_file(folder / "model.keras").load_compiled()
    assert missing is None
    assert int(model.optimizer.iterations) == 8


def test_optimizer_whose_state_does_not_fit_is_said(trained):
    model, _, folder = trained
    model.get_layer("dense").trainable = False  # fewer variables to train than when it was compiled
    model.save(folder / "model.keras")
    found, missing = open_keras_file(folder / "model.keras").load_compiled()
    assert found.compiled
    assert missing.startswith("its optimizer starts anew: Skipping variable loading")


def test_damaged_model_is_refused_with_or_without_its_loss(trained):
    _, _, folder = trained
    (folder / "model.keras").write_bytes((folder / "model.keras").read_bytes()[:-100])
    with pytest.raises(ExportError, match="Save the model again"):
        open_keras_file(folder / "model.keras").load_compiled()
