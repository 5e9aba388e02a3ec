"""The command line: its output and its exit status.

In this process, where that shows as much; in another one where starting, stderr from its first
byte, signals, or the end of the process count.
"""

import json
import os
import signal
import subprocess
import sys
import time
import types
import zipfile

import keras
import numpy as np
import onnx
import pytest

from keras_bn.export.commands import check, cli
from keras_bn.export.files import onnx_file as saving
from tests.commands import TOOL, assert_one_line, tool
from tests.export.onnx_edits import change_weight


@pytest.mark.smoke
def test_export_writes_a_proven_file(files):
    done = tool("export", files / "model.keras", files / "new.onnx")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "0 left" in done.stdout
    assert "agrees: " in done.stdout
    onnx.checker.check_model(files / "new.onnx", full_check=True)


def test_export_without_proof(run, files):
    done = run("export", files / "model.keras", files / "new.onnx", "--no-check")
    assert done.returncode == 0
    assert "parity not checked" in done.stdout


def change_a_bias(path):
    change_weight(path, "dense/bias", lambda bias: bias + 0.01)


@pytest.mark.smoke
def test_check_exits_with_the_verdict(run, files):
    agreed = run("check", files / "model.keras", files / "model.onnx")
    assert (agreed.returncode, agreed.stderr) == (0, "")
    assert agreed.stdout.startswith("agrees: ")
    change_a_bias(files / "model.onnx")
    differs = run("check", files / "model.keras", files / "model.onnx")
    assert (differs.returncode, differs.stderr) == (1, "")
    assert differs.stdout.startswith("DIFFERS: ")


PARITY_SCRIPT = (sys.executable, "-m", "keras_bn.export.parity")


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        pytest.param(lambda path: None, 0, "agrees", id="agrees"),
        pytest.param(change_a_bias, 1, "DIFFERS", id="differs"),
    ],
)
def test_parity_script_exits_with_the_verdict(files, change, status, word):
    change(files / "model.onnx")
    done = tool(files / "model.keras", files / "model.onnx", program=PARITY_SCRIPT)
    assert (done.returncode, done.stderr) == (status, "")
    assert word in done.stdout


@pytest.mark.parametrize("name", ["samples.npz", "samples.npy"])
def test_check_takes_samples(run, files, rng, name):
    x = rng.normal(size=(7, 6, 6, 3)).astype(np.float32)
    if name.endswith("npz"):
        np.savez(files / name, image=x, label=np.zeros(7))
    else:
        np.save(files / name, x)
    done = run("check", files / "model.keras", files / "model.onnx", "--input", files / name)
    assert done.returncode == 0
    assert "7 samples" in done.stdout


def test_missing_model_is_one_line(run, tmp_path):
    done = run("export", tmp_path / "no.keras", tmp_path / "out.onnx")
    assert_one_line(done, str(tmp_path / "no.keras"), "no such file")


def test_parity_script_refuses_a_missing_file_in_one_line(files):
    done = tool(files / "model.keras", files / "no.onnx", program=PARITY_SCRIPT)
    assert_one_line(done, str(files / "no.onnx"), "no such file")


def test_folder_as_model_is_one_line(run, tmp_path):
    assert_one_line(run("export", tmp_path, tmp_path / "out.onnx"), "it is a folder")


def truncate(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def damage_config(path):
    rewrite(path, "config.json", b"{")


def damage_weights(path):
    rewrite(path, "model.weights.h5", b"not HDF5")


def rewrite(path, name, content):
    with zipfile.ZipFile(path) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for part, old in parts.items():
            archive.writestr(part, content if part == name else old)


@pytest.mark.parametrize("damage", [truncate, empty, other_zip, damage_config, damage_weights])
def test_damaged_model_is_one_line_and_leaves_the_target(run, files, damage):
    damage(files / "model.keras")
    before = (files / "model.onnx").read_bytes()
    done = run("export", files / "model.keras", files / "model.onnx")
    assert_one_line(done, str(files / "model.keras"), "Save the model again")
    assert (files / "model.onnx").read_bytes() == before


def test_model_that_was_never_built_is_one_line(run, tmp_path):
    with pytest.warns(UserWarning, match="not yet been built"):
        keras.Sequential([keras.layers.Dense(3)], name="unbuilt").save(tmp_path / "unbuilt.keras")
    done = run("export", tmp_path / "unbuilt.keras", tmp_path / "out.onnx")
    assert_one_line(done, "model 'unbuilt', which was never called", "keras.Input")
    assert not (tmp_path / "out.onnx").exists()


def test_model_with_code_is_refused(run, tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1)])
    model.save(tmp_path / "model.keras")
    done = run("export", tmp_path / "model.keras", tmp_path / "out.onnx")
    assert_one_line(done, "model.keras", "Lambda")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("target", ["no/out.onnx", "model.keras/out.onnx", "."])
def test_unwritable_target_is_one_line(run, files, target):
    done = run("export", files / "model.keras", files / target)
    assert_one_line(done, str(files / target), "existing, writable folder")


def test_model_is_never_overwritten(run, files):
    before = (files / "model.keras").read_bytes()
    done = run("export", files / "model.keras", files / "model.keras")
    assert_one_line(done, "another file than MODEL.keras")
    assert (files / "model.keras").read_bytes() == before


def test_damaged_onnx_file_is_one_line_before_the_model_is_loaded(run, files, monkeypatch):
    monkeypatch.setattr(check, "load_with_samples", pytest.fail)
    truncate(files / "model.onnx")
    done = run("check", files / "model.keras", files / "model.onnx")
    assert_one_line(done, str(files / "model.onnx"), "truncated")


def test_samples_with_objects_are_refused(run, files):
    np.savez(files / "samples.npz", image=np.array([{"code": 1}], dtype=object))
    done = run(
        "check", files / "model.keras", files / "model.onnx", "--input", files / "samples.npz"
    )
    assert_one_line(done, "samples.npz", "numpy.savez")


def test_samples_of_wrong_shape_are_one_line(run, files):
    np.savez(files / "samples.npz", image=np.zeros((2, 5, 5, 3)))
    done = run(
        "check", files / "model.keras", files / "model.onnx", "--input", files / "samples.npz"
    )
    assert_one_line(done, "shape (2, 5, 5, 3)")


def test_name_that_is_too_long_is_one_line(run, files):
    name = "a" * 300
    assert_one_line(run("export", files / f"{name}.keras", files / "new.onnx"), "too long")
    assert_one_line(run("export", files / "model.keras", files / f"{name}.onnx"), "too long")


def test_full_or_closed_stderr_does_not_change_the_status(files):
    for redirection in ("2>/dev/full", "2>&-"):
        words = f"{TOOL} export {files / 'no.keras'} {files / 'new.onnx'} {redirection}"
        done = subprocess.run(["bash", "-c", words], capture_output=True, check=False)  # noqa: S607
        assert (done.returncode, done.stdout) == (2, b"")


def test_full_stdout_is_one_line():
    words = f"{TOOL} check --help >/dev/full"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, check=False)  # noqa: S607
    assert_one_line(done, "Received: No space left on device")


def test_samples_that_nothing_reads_are_refused(run, files):
    words = ["export", files / "model.keras", files / "new.onnx", "--no-check"]
    assert_one_line(run(*words, "--input", files / "x.npz"), "--input must be left out")


def test_option_is_refused_before_tensorflow_starts(run, files):
    words = [files / "model.keras", files / "model.onnx"]
    assert_one_line(run("check", *words, "--precision", "half"), "Received: 'half'")
    assert_one_line(run("check", *words, "--provider", "Foo"), "Received: ['Foo']")


def test_other_backend_is_one_line(files):
    done = tool("export", files / "model.keras", files / "new.onnx", KERAS_BACKEND="jax")
    assert_one_line(done, "KERAS_BACKEND='jax'")


def test_reader_that_goes_away_does_not_change_the_verdict(files):
    words = f"{TOOL} check {files / 'model.keras'} {files / 'model.onnx'}"
    done = subprocess.run(
        ["bash", "-c", f"{words} | true; exit ${{PIPESTATUS[0]}}"],  # noqa: S607
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["killed", "ctrl-c"]
)
def test_stopped_export_leaves_no_file_behind(files, number, status):
    command = [TOOL, "export", files / "model.keras", files / "model.onnx"]
    before = (files / "model.onnx").read_bytes(), sorted(files.iterdir())
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.poll() is None and len(list(files.iterdir())) == len(before[1]):
        time.sleep(0.01)
    process.send_signal(number)
    printed = process.communicate(timeout=60)
    assert (process.returncode, *printed) == (status, b"", b"")
    assert ((files / "model.onnx").read_bytes(), sorted(files.iterdir())) == before


def test_interrupt_while_the_program_is_being_imported_is_no_error_of_its_own(monkeypatch):
    half_imported = types.ModuleType("keras_bn.export.files.whole_file")
    monkeypatch.setitem(sys.modules, half_imported.__name__, half_imported)
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    cli._end(signal.SIGINT, None)
    assert ended == [130]


def test_debug_adds_the_traceback(run, tmp_path):
    done = run("export", tmp_path / "no.keras", tmp_path / "out.onnx", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["export", "a.keras"], "Missing argument 'OUT.onnx'", id="argument"),
        pytest.param(["fold", "a.onnx", "--dry"], "No such option: --dry", id="option"),
        pytest.param(["bench", "a.onnx", "--threads", "0"], "'--threads'", id="number"),
        pytest.param(["chek"], "No such command 'chek'. Did you mean 'check'? See", id="command"),
    ],
)
def test_words_that_cannot_be_read_are_one_line(run, words, message):
    assert_one_line(run(*words), message, "--help")


def test_version_and_help():
    assert tool("--version").stdout.startswith("keras-bn ")
    text = tool("--help").stdout
    assert all(command in text for command in ("demo", "export", "check"))


def test_parity_script_calls_itself_by_its_name():
    text = tool("--help", program=PARITY_SCRIPT).stdout
    assert "Usage: python -m keras_bn.export.parity [OPTIONS] {MODEL.keras} {MODEL.onnx}" in text
    assert "python -m keras_bn.export.parity model.keras model.onnx --json" in text
    assert "keras-bn" not in text


def test_python_m_is_the_same_tool(tmp_path):
    done = tool(
        "check", tmp_path / "a", tmp_path / "b", program=(sys.executable, "-m", "keras_bn.export")
    )
    assert_one_line(done, "no such file")


def test_missing_extra_is_one_line(tmp_path):
    (tmp_path / "typer.py").write_text("raise ModuleNotFoundError(name='typer')")
    done = tool("--help", PYTHONPATH=str(tmp_path))
    assert_one_line(done, "'typer'", "pip install 'keras-bn[export]'")


def test_demo_refuses_a_file_as_folder(run, tmp_path):
    (tmp_path / "file").write_text("")
    assert_one_line(run("demo", "--out", tmp_path / "file"), "--out", str(tmp_path / "file"))


@pytest.mark.parametrize("command", ["export", "check"])
@pytest.mark.parametrize("how", [(), ("--json",), ("--quiet",), ("--json", "--quiet")], ids=str)
def test_parity_that_fails_is_told_in_every_way(run, files, monkeypatch, command, how):
    if command == "export":
        monkeypatch.setattr("keras_bn.export.pipeline.write", write_another_bias)
    else:
        change_a_bias(files / "model.onnx")
    done = run(command, files / "model.keras", files / "model.onnx", *how)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == (command == "export" and how == ("--quiet",))
    if "--json" in how:
        content = json.loads(done.stdout)
        parity = content if command == "check" else content["parity"]
        assert (content["passed"], parity["passed"], parity["model"]) == (False, False, "small")
    else:
        assert done.stdout.startswith("DIFFERS: ") is ("--quiet" not in how)
        assert bool(done.stdout) is ("--quiet" not in how)
    assert ("was not written" in done.stdout + done.stderr) is (
        command == "export" and "--json" not in how
    )


def write_another_bias(graph, path, **options):
    size = saving.write(graph, path, **options)
    change_a_bias(path)
    return size


def test_export_in_json_and_in_silence(run, files):
    done = run("export", files / "model.keras", files / "new.onnx", "--json")
    content = json.loads(done.stdout)
    assert (content["written"], content["passed"], content["path"]) == (
        True,
        True,
        str(files / "new.onnx"),
    )
    assert content["bytes"] == (files / "new.onnx").stat().st_size
    assert content["parity"]["outputs"][0]["name"] == "dense_bn"
    done = run("export", files / "model.keras", files / "quiet.onnx", "--quiet", "--no-check")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (files / "quiet.onnx").exists()


def test_error_is_told_in_silence_too(run, tmp_path):
    done = run("check", tmp_path / "no.keras", tmp_path / "no.onnx", "--quiet", "--json")
    assert_one_line(done, "no such file")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['keras-bn', '--help']\n"
        "from keras_bn.export.__main__ import main\n"
        "try: main()\n"
        "finally: print('heavy:', *{'numpy', 'onnx', 'tensorflow', 'keras'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["heavy:"]
