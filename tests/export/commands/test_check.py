"""The options of `keras-bn check`, in this process."""

import json
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn.export.parity.samples.samples import Sampling
from tests.commands import assert_one_line


@pytest.fixture
def check(run, files):
    return lambda *words: run("check", files / "model.keras", files / "model.onnx", *words)


@pytest.fixture
def called(monkeypatch):
    """What is compared, and how, in place of a check."""
    from keras_bn.export.parity import check as checking

    found = {}
    original = checking.check_samples

    def recorded(sampling, path, stages, *, surface, **options):
        asked = {
            name: getattr(sampling, name) for name in ("inputs", "precision", "seed", "ranges")
        }
        found.update(asked, **options)
        return original(
            Sampling(sampling.model, inputs=sampling.inputs), path, stages, surface=surface
        )

    monkeypatch.setattr(checking, "check_samples", recorded)
    return found


def test_json_is_the_report(check):
    content = json.loads(check("--json", "--seed", 5).stdout)
    assert (content["schema"], content["passed"], content["seed"]) == (1, True, 5)
    assert {row["case"] for row in content["outputs"]} == {"drawn", "constant", "out of range"}


def test_options_reach_the_check(check, called):
    words = ["--seed", 7, "--range", "image=-1:0.5", "--provider", "CPUExecutionProvider"]
    assert check(*words, "--no-explain", "--precision", "float16").returncode == 0
    assert called["seed"] == 7
    assert called["ranges"] == {"image": (-1.0, 0.5)}
    assert called["providers"] == ["CPUExecutionProvider"]
    assert called["explain"] is False
    assert called["precision"] == "float16"


def test_defaults_are_those_of_the_check(check, called):
    assert check().returncode == 0
    assert called == {
        "inputs": None,
        "precision": "keep",
        "seed": 0,
        "ranges": None,
        "providers": ["CPUExecutionProvider"],
        "explain": True,
    }


def test_range_needs_no_name_for_a_single_input(check):
    drawn = json.loads(check("--range", "-2:3", "--json").stdout)["drawn"]
    assert drawn == {"image": "uniform in [-2, 3], as stated"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--range", "image=1"], "Received: 'image=1'"),
        (["--range", "image=a:b"], "Received: 'image=a:b'"),
        (["--range", "image=2:1"], "two finite numbers, the smaller first"),
        (["--range", "0:nan"], "two finite numbers"),
        (["--range", "other=0:1"], "inputs of the model, ['image']"),
        (["--range", "0:1", "--range", "0:2"], "given once for each input"),
        (["--range", "0:1", "--range", "image=0:2"], "--range image=LOW:HIGH"),
        (["--provider", "NoSuchProvider"], "['NoSuchProvider']"),
        (["--preprocess", "resnet"], "a folder of images"),
        (["--precision", "half"], "half"),
    ],
)
def test_wrong_options_are_one_line(check, words, message):
    assert_one_line(check(*words), message)


@pytest.mark.parametrize("words", [["--seed", 0], ["--range", "0:1"]])
def test_what_is_drawn_cannot_be_set_for_given_samples(check, files, words):
    np.savez(files / "x.npz", image=np.zeros((2, 6, 6, 3)))
    assert_one_line(check("--input", files / "x.npz", *words), f"{words[0]} must be left out")


def test_range_must_name_one_of_several_inputs(run, files):
    a, b = (keras.Input((2,), name=name) for name in "ab")
    keras.Model([a, b], a + b).save(files / "two.keras")
    done = run("check", files / "two.keras", files / "model.onnx", "--range", "0:1")
    assert_one_line(done, "one of ['a', 'b']", "--range a=LOW:HIGH")


def test_unsafe_is_for_those_who_ask(run, files):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x + 1)])
    model.save(files / "code.keras")
    for words in (
        ["export", files / "code.keras", files / "code.onnx"],
        ["check", files / "code.keras", files / "code.onnx"],
        ["bench", files / "code.keras", "--seconds", 0.1],
    ):
        (files / "code.onnx").touch()
        assert_one_line(run(*words), "Lambda")
        if words[0] == "check":
            assert run("export", *words[1:], "--unsafe", "--quiet").returncode == 0
        assert run(*words, "--unsafe", "--quiet").returncode == 0


def test_folder_of_images_is_read_for_the_model(check, files, rng):
    (files / "photos").mkdir()
    for i in range(3):
        image = tf.io.encode_png(rng.integers(0, 256, (9, 8, 3), np.uint8))
        (files / "photos" / f"{i}.png").write_bytes(image.numpy())
    words = ["--input", files / "photos", "--preprocess", "resnet", "--json"]
    done = check(*words)
    content = json.loads(done.stdout)
    assert content["samples"] == 3
    assert "resnet" in content["notes"][0]


@pytest.fixture
def documents(monkeypatch):
    """The documents of which pages were made, in place of pages."""
    from keras_bn.export.commands.pages.parity_page import ParityDocument

    made = []

    def render_parity_page(document):
        made.append(document)
        return "<p>a page</p>"

    module = types.ModuleType("page")
    module.render_parity_page, module.ParityDocument = render_parity_page, ParityDocument
    monkeypatch.setitem(sys.modules, "keras_bn.export.commands.pages.parity_page", module)
    return made


@pytest.mark.parametrize("agrees", [True, False])
def test_page_is_written_whatever_is_found(check, files, documents, agrees):
    if not agrees:
        from tests.export.commands.test_cli import change_a_bias

        change_a_bias(files / "model.onnx")
    page = files / "proof.html"
    assert check("--html", page, "--no-explain", "--quiet").returncode == (0 if agrees else 1)
    assert page.read_text() == "<p>a page</p>"
    (document,) = documents
    assert document.report.passed is agrees
    assert (document.model.name, document.file.name) == ("model.keras", "model.onnx")
    assert document.command.endswith(f"--html {page} --no-explain --quiet")
    assert document.command.startswith("keras-bn check ")
    assert len(document.fold.folds) == 5
    assert len(document.latency.timings) == 3


def test_export_writes_the_page_of_its_proof(run, files, documents):
    page = files / "proof.html"
    done = run("export", files / "model.keras", files / "new.onnx", "--html", page)
    assert (done.returncode, page.read_text()) == (0, "<p>a page</p>")
    assert documents[0].file.bytes == (files / "new.onnx").stat().st_size


def test_export_that_differs_writes_the_page_alone(run, files, documents, monkeypatch):
    from tests.export.commands.test_cli import write_another_bias

    monkeypatch.setattr("keras_bn.export.pipeline.write", write_another_bias)
    page, new = files / "proof.html", files / "new.onnx"
    done = run("export", files / "model.keras", new, "--html", page)
    assert (done.returncode, page.read_text(), new.exists()) == (1, "<p>a page</p>", False)
    (document,) = documents
    assert not document.report.passed
    assert document.file is None
    assert document.file_name == "new.onnx"
    assert len(document.latency.timings) == 3


def test_page_that_cannot_be_is_refused_first(check, files):
    before = (files / "model.onnx").read_bytes()
    assert_one_line(check("--html", files / "model.onnx"), "PAGE.html must be another file")
    assert_one_line(check("--html", files / "no" / "page.html"), "existing, writable folder")
    assert (files / "model.onnx").read_bytes() == before


def test_samples_are_never_overwritten(check, run, files):
    x = files / "x.npz"
    np.savez(x, image=np.zeros((2, 6, 6, 3)))
    before = x.read_bytes()
    assert_one_line(check("--input", x, "--html", x), "PAGE.html must be another file than --input")
    done = run("export", files / "model.keras", x, "--input", x)
    assert_one_line(done, "OUT.onnx must be another file than --input")
    assert x.read_bytes() == before


def test_page_of_no_proof_is_refused(run, files):
    words = ["export", files / "model.keras", files / "new.onnx", "--no-check"]
    assert_one_line(run(*words, "--html", files / "page.html"), "--no-check")
