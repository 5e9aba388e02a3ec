"""What the README shows is what happens."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import keras
import onnx
import pytest

import keras_bn
from tests.commands import tool
from tests.export.foreign_graphs import TORCH, foreign

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(language, page=README):
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def run(code, folder):
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


def test_example_is_short_and_prints_what_the_readme_says(tmp_path):
    example, output = blocks("python")[0], blocks("text")[0]
    code = [line for line in example.splitlines() if line and not line.startswith("#")]
    assert len(code) <= 12
    assert run(example, tmp_path) == output
    assert (tmp_path / "model.onnx").exists()


def test_conversion_runs():
    namespace = {"keras_bn": keras_bn, "model": keras.Sequential([keras.layers.Dense(2)])}
    exec(blocks("python")[1], namespace)  # noqa: S102


def test_statistics_run(rng, capsys):
    model = keras.Sequential(
        [keras.Input((3,)), keras_bn.BatchNormalization(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    before = model.get_weights()
    x = rng.normal(5.0, 1.0, (64, 3)).astype("float32")
    exec(blocks("python")[2], {"keras_bn": keras_bn, "model": model, "x": x, "y": x[:, :1]})  # noqa: S102
    assert "never updated" in capsys.readouterr().out
    assert all((old == new).all() for old, new in zip(before, model.get_weights(), strict=True))


def test_fold_of_a_file_runs(tmp_path, monkeypatch, capsys):
    onnx.save(foreign(TORCH), tmp_path / "theirs.onnx")
    monkeypatch.chdir(tmp_path)
    exec(blocks("python")[3], {})  # noqa: S102
    assert "2 folded, 0 left" in capsys.readouterr().out


def test_commands_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", "\n".join(blocks("sh"))):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
    for command in set(re.findall(r"^keras-bn (\w+)", "\n".join(blocks("sh")), re.MULTILINE)):
        assert tool(command, "--help").returncode == 0


def test_extras_exist():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert set(re.findall(r"keras-bn\[(\w+)\]", README)) <= set(extras)


@pytest.mark.parametrize("path", re.findall(r"[`(]([\w/]+(?:\.py|\.md|/))[`)]", README))
def test_paths_exist(path):
    assert any((ROOT / folder / path).exists() for folder in ("", "keras_bn", "export", "tests"))


def test_places_that_a_contributor_is_sent_to_exist():
    folders = [ROOT / name for name in ("keras_bn", "export", "models", "tests")]
    for place in re.findall(r"`([\w/]+(?:\.py|/))`", CONTRIBUTING):
        inside = (found for folder in folders for found in folder.rglob(place))
        assert (ROOT / place).exists() or next(inside, None), place
