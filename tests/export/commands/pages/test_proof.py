"""The page of a proof shares what the command has done."""

import pytest

from keras_bn.export.stages import conversion


@pytest.fixture
def traced(monkeypatch):
    """A list that grows by each conversion of a model."""
    found, trace = [], conversion.trace

    def counted(model, **options):
        found.append(model.name)
        return trace(model, **options)

    monkeypatch.setattr(conversion, "trace", counted)
    return found


@pytest.mark.parametrize("words", [["check"], ["check", "--no-explain"], ["export"]])
def test_model_is_converted_once_for_the_command_and_the_page(run, files, traced, words):
    page = files / "page.html"
    done = run(*words, files / "model.keras", files / "model.onnx", "--html", page, "--quiet")
    assert done.returncode == 0
    assert len(traced) == 1
    assert "before folding" in page.read_text()


def test_without_a_page_a_check_that_explains_nothing_converts_nothing(run, files, traced):
    assert run("check", files / "model.keras", files / "model.onnx", "--no-explain").returncode == 0
    assert traced == []
