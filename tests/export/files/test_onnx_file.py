import os
import re
import signal
import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from keras_bn.export import ExportError
from keras_bn.export.files import onnx_file as save
from keras_bn.export.files.onnx_file import add_metadata, write
from keras_bn.export.files.whole_file import replacing
from tests.export.graphs import graph


def relu():
    return graph("g (float[1] x) => (float[1] y) { y = Relu(x) }")


def test_write_gives_the_size_of_a_valid_file(tmp_path):
    path = tmp_path / "model.onnx"
    assert write(relu(), path) == path.stat().st_size
    onnx.checker.check_model(path, full_check=True)


def test_same_graph_gives_the_same_bytes(tmp_path):
    write(relu(), tmp_path / "a.onnx")
    write(relu(), tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_invalid_graph_is_refused(tmp_path):
    model = relu()
    model.graph.append(ir.node("NoSuchOperator", [model.graph.inputs[0]]))
    with pytest.raises(ExportError, match=r"onnx.checker says.*NoSuchOperator"):
        write(model, tmp_path / "model.onnx")


def scaled(values):
    return graph(
        f"g (float[{len(values)}] x, float[{len(values)}] w) => (float[{len(values)}] y)"
        "{ y = Mul(x, w) }",
        w=np.asarray(values, np.float32),
    )


def test_model_too_large_for_one_file_is_refused_if_there_may_be_no_other(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "LARGEST_FILE", save.FOR_METADATA + 1000)
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match=r"fit into 1,000 bytes. Received: a model of 1,\d\d\d b"):
        write(scaled(np.ones(256)), path, external_data=False)
    assert list(tmp_path.iterdir()) == []
    write(scaled(np.ones(128)), path, external_data=False)


def test_model_too_large_for_one_file_gets_another(tmp_path, monkeypatch):
    monkeypatch.setattr(save, "LARGEST_FILE", save.FOR_METADATA + 1000)
    path = tmp_path / "model.onnx"
    write(scaled(np.ones(128)), path)
    assert list(tmp_path.iterdir()) == [path]
    size = write(scaled(np.ones(256)), path)
    assert size == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("external_data", [True, False])
def test_metadata_can_be_written_and_added_later(tmp_path, external_data):
    path = tmp_path / "model.onnx"
    model = scaled(np.arange(1000))
    model.metadata_props.update({"kept": "1", "replaced": "1"})
    write(model, path, external_data=external_data, metadata={"replaced": "2", "new": "3"})
    before = path.read_bytes()
    add_metadata(path, {"later": "4"})
    add_metadata(path, {"last": "\N{GREEK SMALL LETTER GAMMA}"})
    assert path.read_bytes().startswith(before)
    expected = {"kept": "1", "replaced": "2", "new": "3", "later": "4", "last": "\u03b3"}
    assert {p.key: p.value for p in onnx.load(path).metadata_props} == expected
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == expected
    np.testing.assert_array_equal(
        session.run(None, {"x": np.ones(1000, np.float32)})[0], np.arange(1000)
    )
    assert model.metadata_props == {"kept": "1", "replaced": "1"}


def test_too_much_metadata_is_refused(tmp_path):
    write(relu(), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"fit into 1,048,576 bytes\. Received: 2,0"):
        add_metadata(tmp_path / "model.onnx", {"long": "x" * 2_000_000})


def test_replacing_puts_the_new_file_in_place(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_keeps_the_old_file_when_the_block_raises(tmp_path, error):
    target = tmp_path / "file"
    target.write_text("old")

    def write_half():
        with replacing(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_killed_process_leaves_the_old_file_whole(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")
    code = """if True:
        import os, signal, sys, pathlib
        from keras_bn.export.files.whole_file import replacing
        with replacing(pathlib.Path(sys.argv[1])) as temporary:
            temporary.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    # `-m` would import TensorFlow along with the parent package; argv[0] of "keras-bn" does not
    code = f"import sys; sys.argv[0] = 'keras-bn'\n{code}"
    done = subprocess.run([sys.executable, "-c", code, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


def test_new_file_has_the_usual_permissions(tmp_path):
    ordinary, target = tmp_path / "ordinary", tmp_path / "target"
    ordinary.write_text("")
    with replacing(target) as temporary:
        temporary.write_text("")
    assert target.stat().st_mode == ordinary.stat().st_mode


def test_missing_folder_is_refused(tmp_path):
    target = tmp_path / "no" / "model.onnx"
    with pytest.raises(ExportError, match=re.escape(str(target))), replacing(target):
        pass


def test_error_of_the_block_is_not_blamed_on_the_target(tmp_path):
    def fail():
        with replacing(tmp_path / "file"):
            raise FileNotFoundError("something else")

    with pytest.raises(FileNotFoundError, match="something else"):
        fail()


def test_link_is_followed(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("old")
    link.symlink_to(real)
    with replacing(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"


def test_link_to_itself_is_refused(tmp_path):
    link = tmp_path / "link"
    link.symlink_to(link)
    with pytest.raises(ExportError, match=r"leads to itself|symbolic links"), replacing(link):
        pass


def test_pipe_as_target_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ExportError, match="device, pipe or socket"), replacing(tmp_path / "pipe"):
        pass


def test_long_name_is_possible(tmp_path):
    target = tmp_path / ("a" * 250 + ".onnx")
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"


def test_folder_as_target_is_refused(tmp_path):
    with pytest.raises(ExportError, match="it is a folder"), replacing(tmp_path):
        pass
