"""A large network is compared layer by layer in bounded memory."""

import sys

import pytest

from tests.commands import in_a_process

MODEL = """
import sys
import keras
from keras_bn.export import check_parity, export_onnx

keras.utils.set_random_seed(0)
model = keras.applications.ResNet50(weights=None)
"""
EXPORT = f"{MODEL}export_onnx(model, sys.argv[1], check=False)"
CHECK = f"""{MODEL}
report = check_parity(model, sys.argv[1])
assert report.passed, report
assert len(report.layers) > 100
"""


@pytest.mark.slow
def test_resnet50_stays_below_three_gigabytes(tmp_path):
    for program in (EXPORT, CHECK):
        done, memory = in_a_process(sys.executable, "-c", program, tmp_path / "model.onnx")
        assert done.returncode == 0, done.stderr[-2000:]
        assert memory < 3e9, memory
