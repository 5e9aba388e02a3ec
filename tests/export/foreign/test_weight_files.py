"""Weights in other files: inside the model's folder, whole, and read no earlier than needed."""

import os
import re
import tracemalloc

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_bn.export import ExportError, fold_batch_norms
from keras_bn.export.foreign.opening import open_model
from tests.export.foreign_graphs import conv_bn, foreign, outputs, serialised
from tests.tolerances import assert_close


def save(proto, folder, size=0):
    """Write a model with its weights in a file of their own."""
    path = folder / "model.onnx"
    onnx.save(
        proto,
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=size,
        convert_attribute=True,
    )
    return path


def edit(path, name, **entries):
    """Change what a model says of the place of a weight; None takes an entry away."""
    proto = onnx.load(path, load_external_data=False)
    tensor = next(t for t in proto.graph.initializer if t.name == name)
    places = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in places.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(serialised(proto))


@pytest.fixture
def path(tmp_path):
    return save(conv_bn(), tmp_path)


def assert_refused(path, *texts):
    with pytest.raises(ExportError) as caught:
        fold_batch_norms(path)
    for text in ("fold: the file", repr(str(path)), "'w'", *texts):
        assert text in str(caught.value)


def test_weights_in_a_file_fold(path, rng, tmp_path, monkeypatch):
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32)
    expected = outputs(onnx.load(path), x=x)[0]
    folded, report = fold_batch_norms(path)
    assert len(report.folds) == 1
    assert_close(outputs(ir.to_proto(folded), x=x)[0], expected, 1e-6)
    monkeypatch.chdir(tmp_path)
    assert len(fold_batch_norms("model.onnx")[1].folds) == 1
    assert len(fold_batch_norms(ir.load("model.onnx"))[1].folds) == 1


def test_place_may_be_given_without_length(path):
    edit(path, "w", length=None)
    assert len(fold_batch_norms(path)[1].folds) == 1


def test_folder_within_the_models_folder(path, tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "inner" / "weights.bin")
    for name in "wgbmv":
        edit(path, name, location="inner/weights.bin")
    assert len(fold_batch_norms(path)[1].folds) == 1


def test_link_within_the_folder_is_followed(path, tmp_path):
    (tmp_path / "weights.bin").rename(tmp_path / "other.bin")
    (tmp_path / "weights.bin").symlink_to("other.bin")
    assert len(fold_batch_norms(path)[1].folds) == 1


@pytest.mark.parametrize(
    "location",
    [
        "/etc/passwd",
        "../secret.bin",
        "inner/../../secret.bin",
        "..\\secret.bin",
        "C:\\secret",
        "",
        "a\0b",
    ],
)
def test_location_that_leaves_the_folder(location, path, tmp_path, monkeypatch):
    edit(path, "w", location=location)
    monkeypatch.setattr("mmap.mmap", None)  # nothing may be read
    assert_refused(path, repr(location), "it must be a relative path without '..'")


def test_link_out_of_the_folder(tmp_path, monkeypatch):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = save(conv_bn(), inner)
    (inner / "weights.bin").rename(tmp_path / "weights.bin")
    (inner / "weights.bin").symlink_to(tmp_path / "weights.bin")
    monkeypatch.setattr("mmap.mmap", None)
    assert_refused(path, "a link leads to", str(tmp_path / "weights.bin"))


def test_second_name_of_a_file_elsewhere(path, tmp_path):
    os.link(tmp_path / "weights.bin", tmp_path / "again.bin")
    assert_refused(path, "ordinary file with one name")


def test_error_begins_with_whoever_opens_the_model(path, tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(ExportError, match=r"^check: the file of a weight must hold"):
        open_model(path, where="check")
    edit(path, "w", location="../weights.bin")
    with pytest.raises(ExportError, match=r"^check: the files of an ONNX model's weights"):
        open_model(path, where="check")


def test_missing_file(path, tmp_path):
    (tmp_path / "weights.bin").unlink()
    assert_refused(path, "No such file")


def test_folder_in_place_of_the_file(path, tmp_path):
    (tmp_path / "weights.bin").unlink()
    (tmp_path / "weights.bin").mkdir()
    assert_refused(path, "ordinary file")


@pytest.mark.parametrize(
    "entries",
    [{"length": "433"}, {"length": "1"}, {"offset": "99999"}, {"offset": str(2**70)}],
    ids=str,
)
def test_place_that_does_not_fit_the_file(entries, path):
    edit(path, "w", **entries)
    assert_refused(path, "must hold its bytes", "'w' of 432 bytes")


@pytest.mark.parametrize("entries", [{"offset": "-1"}, {"length": "-4"}, {"offset": "x"}], ids=str)
def test_place_that_is_no_number(entries, path):
    edit(path, "w", **entries)
    with pytest.raises(ExportError, match=r"whole and valid ONNX model.*ValueError"):
        fold_batch_norms(path)


def test_truncated_file(path, tmp_path):
    content = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(content[:-1])
    with pytest.raises(ExportError, match="must hold its bytes"):
        fold_batch_norms(path)


def test_weights_that_only_a_path_can_find(path):
    with pytest.raises(ExportError, match=re.escape("in 'weights.bin'. Pass the file's path")):
        fold_batch_norms(onnx.load(path, load_external_data=False))


def test_constants_in_attributes_and_bodies_are_found(tmp_path, rng):
    text = """g (bool k, float[2,3,8,8] x) => (float[2,4,6,6] y) {
        c = Conv(x, w) n = BatchNormalization(c, g, b, m, v)
        two = Constant<value = float[1] {2.0}>() e = Exp(n) t = Pow(e, two)
        y = If(k) <
            then_branch = a () => (float[2,4,6,6] p) {
                four = Constant<value = float[1] {4.0}>() p = Mod<fmod = 1>(t, four)
            },
            else_branch = b () => (float[2,4,6,6] q) { q = Relu(t) }
        >
    }"""
    path = save(foreign(text), tmp_path)
    x = rng.normal(size=(2, 3, 8, 8)).astype(np.float32) * 0.1
    expected = outputs(onnx.load(path), x=x, k=np.array(True))[0]
    folded, report = fold_batch_norms(path)
    assert len(report.folds) == 1
    (tmp_path / "weights.bin").rename(tmp_path / "moved.bin")
    with pytest.raises(ExportError, match="No such file"):
        fold_batch_norms(path)
    (tmp_path / "moved.bin").rename(tmp_path / "weights.bin")
    assert_close(outputs(ir.to_proto(folded), x=x, k=np.array(True))[0], expected, 1e-6)


def test_large_weights_are_not_read_all_at_once(tmp_path):
    nodes = "".join(f"h{i} = Relu(x{i}) x{i + 1} = MatMul(h{i}, big{i})" for i in range(6))
    proto = foreign(
        f"g (float[1,1000] x0) => (float[1,1000] x6) {{ {nodes} }}",
        weights={f"big{i}": (1000, 1000) for i in range(6)},
    )
    proto.graph.node[-1].output[0] = "last"
    proto.graph.node.add(op_type="Mul", input=["last", "k"], output=["x6"])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.full(1000, 2, np.float32), "k"))
    path = save(proto, tmp_path, 1024)
    del proto
    tracemalloc.start()
    _, report = fold_batch_norms(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(report.folds) == 1
    assert peak < 8_000_000  # one of the six in float64
