"""The stages of a conversion in files."""

import onnx
import pytest

from keras_bn.export import ExportError
from keras_bn.export.stages.conversion import convert
from keras_bn.export.stages.converted import StageFiles

SECOND = {"keras_bn.inputs_as_nchw": '["image"]'}


def test_stages_are_made_once_and_say_their_layout(small_model, tmp_path):
    calls = []

    def counted(model, **options):
        calls.append(options)
        return convert(model, **options)

    stages = StageFiles(tmp_path, counted)
    options = {"inputs_as_nchw": ["image"], "opset": 17}
    first = list(stages.converted(small_model, SECOND, **options))
    assert stages.complete
    assert list(stages.converted(small_model)) == first
    assert calls == [options]
    assert [file.stage for file in first] == ["tracing", "layout", "folding"]
    assert stages.of("layout") == first[1].path
    told = [{e.key: e.value for e in onnx.load(file.path).metadata_props} for file in first]
    assert told == [{}, SECOND, SECOND]
    assert [len(file.fold.folds) for file in first] == [0, 0, 5]


def test_what_was_made_before_an_error_stays_and_is_not_all(small_model, tmp_path):
    def failing(model):
        yield next(convert(model))
        raise ExportError("no further")

    stages = StageFiles(tmp_path, failing)
    for _ in range(2):  # it is tried again, not taken for done
        with pytest.raises(ExportError, match="no further"):
            list(stages.converted(small_model))
        assert [file.stage for file in stages.files] == ["tracing"]
        assert not stages.complete
