import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from keras_bn.export import ExportError
from keras_bn.export.files.onnx_file import write
from keras_bn.export.files.whole_file import remove_unfinished, replacing, write_data_of
from tests.export.graphs import graph

NAME = re.compile(r"model\.onnx\.[0-9a-f]{32}\.data")


def two_weights(value):
    """Return a graph with a weight of 64 KB, one of 4 KB, and one that is too small to be moved."""
    return graph(
        """g (float[2,64] x, float[64,256] w, float[256,4] v, float[4] b) => (float[2,4] y) {
            h = MatMul(x, w) c = MatMul(h, v) y = Add(c, b)
        }""",
        w=np.full((64, 256), value, np.float32),
        v=np.arange(1024, dtype=np.float32).reshape(256, 4),
        b=np.arange(4, dtype=np.float32),
    )


def export(value, target, external_data=True):
    with replacing(target) as temporary:
        write(two_weights(value), temporary, external_data=external_data)


def run(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.ones((2, 64), np.float32)})[0]


def data_files(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".data")


def test_large_weights_are_in_one_file_at_the_places_onnxruntime_likes(tmp_path):
    target = tmp_path / "model.onnx"
    export(2.0, target)
    tensors = {t.name: t for t in onnx.load(target, load_external_data=False).graph.initializer}
    places = {
        name: {entry.key: entry.value for entry in tensors[name].external_data} for name in "wvb"
    }
    (location,) = data_files(tmp_path)
    assert NAME.fullmatch(location)
    assert places["w"] == {"location": location, "offset": "0", "length": "65536"}
    assert places["v"] == {"location": location, "offset": "65536", "length": "4096"}
    assert places["b"] == {}
    onnx.checker.check_model(target, full_check=True)
    export(2.0, tmp_path / "single.onnx", external_data=False)
    np.testing.assert_array_equal(run(target), run(tmp_path / "single.onnx"))


def test_large_weight_begins_at_a_page(tmp_path):
    model = two_weights(1.0)
    weights = model.graph.initializers
    weights["w"] = weights.pop("w")  # last
    write(model, tmp_path / "model.onnx", external_data=True)
    tensors = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.initializer
    offsets = {t.name: int(t.external_data[1].value) for t in tensors if t.external_data}
    assert offsets == {"v": 0, "w": 4096}
    np.testing.assert_array_equal(run(tmp_path / "model.onnx")[0], run_reference(1.0))


def run_reference(value):
    v = np.arange(1024, dtype=np.float32).reshape(256, 4)
    return 64 * value * v.sum(0) + np.arange(4, dtype=np.float32)


def test_temporary_file_can_be_loaded_where_it_lies(tmp_path):
    with replacing(tmp_path / "model.onnx") as temporary:
        write(two_weights(3.0), temporary, external_data=True)
        np.testing.assert_array_equal(run(temporary)[0], run_reference(3.0))


def test_new_data_replace_the_old_ones(tmp_path):
    target = tmp_path / "model.onnx"
    export(1.0, target)
    first = data_files(tmp_path)
    export(2.0, target)
    assert len(data_files(tmp_path)) == 1
    assert data_files(tmp_path) != first
    np.testing.assert_array_equal(run(target)[0], run_reference(2.0))
    export(2.0, target)
    export(1.0, target, external_data=False)
    assert list(tmp_path.iterdir()) == [target]
    np.testing.assert_array_equal(run(target)[0], run_reference(1.0))


@pytest.mark.parametrize("value", [1.0, 2.0], ids=["same data", "other data"])
def test_failed_export_leaves_the_old_data(tmp_path, value):
    target = tmp_path / "model.onnx"
    export(1.0, target)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def fail():
        with replacing(target) as temporary:
            write(two_weights(value), temporary, external_data=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_terminated_export_leaves_nothing_new(tmp_path):
    target = tmp_path / "model.onnx"
    with replacing(target) as temporary:
        write(two_weights(1.0), temporary, external_data=True)
        remove_unfinished()
        assert list(tmp_path.iterdir()) == []
        temporary.write_bytes(b"")


def test_export_terminated_while_it_writes_weights_leaves_nothing(tmp_path):
    def tensors():
        yield from (value.const_value for value in two_weights(1.0).graph.initializers.values())
        assert any(tmp_path.glob(".*.data"))
        remove_unfinished()
        assert list(tmp_path.iterdir()) == []
        raise KeyboardInterrupt

    def fail():
        with replacing(tmp_path / "model.onnx") as temporary:
            write_data_of(temporary, tensors())

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_all_small_need_no_file_of_their_own(tmp_path):
    small = graph(
        "g (float[4] x, float[4] w) => (float[4] y) { y = Mul(x, w) }", w=np.ones(4, np.float32)
    )
    with replacing(tmp_path / "model.onnx") as temporary:
        write(small, temporary, external_data=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_files_of_others_are_not_removed(tmp_path):
    target, other = tmp_path / "model.onnx", tmp_path / "weights.bin"
    foreign = tmp_path / ("model.onnx." + "0" * 32 + ".data")
    export(1.0, target)
    foreign.write_bytes(b"not referred to")
    other.write_bytes(b"referred to, but not written here")
    proto = onnx.load(target, load_external_data=False)
    tensor = proto.graph.initializer.add(name="extra", data_type=1, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=other.name)
    onnx.save(proto, target)
    export(2.0, target)
    assert foreign.exists()
    assert other.exists()
    assert len(data_files(tmp_path)) == 2


def test_target_that_is_no_graph_is_replaced(tmp_path):
    target = tmp_path / "model.onnx"
    target.write_bytes(b"\xff" * 100)
    (tmp_path / ("model.onnx." + "0" * 32 + ".data")).write_bytes(b"")
    export(2.0, target)
    np.testing.assert_array_equal(run(target)[0], run_reference(2.0))


def test_same_graph_gives_the_same_files(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        export(1.0, folder / "model.onnx")
    first, second = ({p.name: p.read_bytes() for p in f.iterdir()} for f in folders)
    assert first == second


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "ordinary").write_text("")
    export(1.0, tmp_path / "model.onnx")
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "model.onnx", tmp_path / "link.onnx"
    link.symlink_to(target)
    export(2.0, link)
    assert data_files(tmp_path) == []
    np.testing.assert_array_equal(run(target)[0], run_reference(2.0))


def test_name_that_leaves_no_room_for_a_hash_is_refused(tmp_path):
    with pytest.raises(ExportError, match="name too long"):
        export(1.0, tmp_path / ("a" * 240 + ".onnx"))
    assert list(tmp_path.iterdir()) == []


def killed(*arguments):
    # the package imports TensorFlow along with itself, unless it runs as `keras-bn`
    code = (
        "import sys; sys.argv[0] = 'keras-bn'\n"
        "from tests.export.files import killed_exports; killed_exports.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        ("two", "two", "['.data', '.onnx']"),
        ("two", "one", "['.onnx']"),
        ("one", "two", "['.data', '.onnx']"),
        ("one", "one", "['.onnx']"),
    ],
)
def test_export_killed_at_any_file_operation_leaves_a_whole_model(before, after, left):
    *states, files = killed(before, after)
    assert sorted(states, reverse=True) == states  # "old", and from one operation on "new"
    assert set(states) == {"old", "new"}
    assert files == left


@pytest.mark.slow
def test_export_killed_at_any_time_leaves_a_whole_model():
    states = killed("any time", "100")
    assert len(states) == 100
    assert set(states) == {"old", "new"}
