import os
import re
import signal
import subprocess
import sys

import onnx
import onnx_ir as ir
import pytest
from graphs import graph

from keras_bn.export import ExportError, save
from keras_bn.export.save import replacing, write


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


def test_graph_too_large_for_one_file_is_refused(tmp_path, monkeypatch):
    import numpy as np

    monkeypatch.setattr(save, "LARGEST_FILE", 100)
    model = graph(
        "g (float[64] x, float[64] w) => (float[64] y) { y = Mul(x, w) }", w=np.ones(64, "f")
    )
    with pytest.raises(ExportError, match=re.escape("Received: a model with 256 bytes of weights")):
        write(model, tmp_path / "model.onnx")


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
        from keras_bn.export.save import replacing
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
