import json

import onnx
import pytest

from tests.commands import tool


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "new" / "folder"
    return folder, tool("demo", "--out", folder)


def test_demo_ends_well_and_says_nothing_on_stderr(demo):
    _, done = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""


def test_demo_table_has_every_row(demo):
    rows = [line.split("│") for line in demo[1].stdout.splitlines() if "│" in line]
    table = {row[1].strip(): (row[2].strip(), row[3].strip()) for row in rows}
    assert min(float(accuracy) for accuracy in table["accuracy on held-out images"]) >= 0.97
    assert table["batch norms"] == ("5", "0")
    assert table["other affine operators left"] == ("", "0")
    assert "largest error against float64" in table
    sizes = [int(size.replace(",", "")) for size in table["file, bytes"]]
    assert sizes == [(demo[0] / f"digits_cnn.{s}").stat().st_size for s in ("keras", "onnx")]
    stages = {name.split(",")[0] for name in table if name.endswith(", seconds")}
    assert stages == {"train", *"trace constants simplify layout fold save parity".split()}


def test_demo_file_has_no_batch_norm(demo):
    operators = {node.op_type for node in onnx.load(demo[0] / "digits_cnn.onnx").graph.node}
    assert operators == {"Reshape", "Conv", "Relu", "ReduceMean", "Gemm", "Softmax"}


def test_demo_files_can_be_checked_again(run, demo):
    folder, _ = demo
    done = run(
        "check",
        folder / "digits_cnn.keras",
        folder / "digits_cnn.onnx",
        "--input",
        folder / "digits_test.npz",
    )
    assert done.returncode == 0
    assert "360 samples" in done.stdout


def test_demo_in_json_and_in_silence(run, tmp_path, monkeypatch):
    from keras_bn.export.commands import digits as showing

    monkeypatch.setattr(showing, "EPOCHS", 1)  # too few: it falls short, and says so
    monkeypatch.setattr(showing, "ACCURACY_TO_REACH", 1.0)
    done = run("demo", "--out", tmp_path, "--json")
    content = json.loads(done.stdout)
    assert (done.returncode, done.stderr, content["passed"]) == (1, "", False)
    assert 0 < content["onnx_accuracy"] < 1
    assert content["export"]["parity"]["passed"] is True
    assert content["keras_bytes"] == (tmp_path / "digits_cnn.keras").stat().st_size
    quiet = run("demo", "--out", tmp_path, "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (1, "", "")
    assert "should have reached 1.0" in run("demo", "--out", tmp_path).stdout
