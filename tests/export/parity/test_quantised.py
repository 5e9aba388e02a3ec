"""Files in 8 bits: named, judged by signal to noise, and made as docs/deploying.md says."""

import dataclasses
import warnings

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

from keras_bn import BatchNormalization
from keras_bn.export import check_parity, export_onnx
from keras_bn.export.commands import digits
from keras_bn.export.parity import rule
from keras_bn.export.parity.graphs.check_files import check_files
from keras_bn.export.parity.quantised import notes_of_bits, quantised_operators
from keras_bn.models import digits_cnn

LAYERS = ["relu", "conv", "pool", "dense"]


class Samples(CalibrationDataReader):
    def __init__(self, images):
        self.batches = iter([{"image": images[i : i + 16]} for i in range(0, len(images), 16)])

    def get_next(self):
        return next(self.batches, None)


def quantise(folder, images):
    """Make int8.onnx of model.onnx in a folder, as docs/deploying.md says."""
    options = {"quant_format": QuantFormat.QDQ, "per_channel": True, "reduce_range": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(folder / "model.onnx", folder / "int8.onnx", Samples(images), **options)


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 1), name="image")
    y = keras.layers.ReLU(name="relu")(BatchNormalization()(keras.layers.Conv2D(8, 3)(x)))
    y = keras.layers.Conv2D(8, 3, name="conv")(y)
    y = keras.layers.GlobalAveragePooling2D(name="pool")(y)
    return keras.Model(x, keras.layers.Dense(4, name="dense")(y))


@pytest.fixture(scope="module")
def files(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantised")
    images = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype(np.float32)
    export_onnx(network, folder / "model.onnx", check=False)
    quantise(folder, images)
    return folder / "model.onnx", folder / "int8.onnx", images


def test_file_in_8_bits_is_named_and_judged_by_signal_to_noise(network, files):
    report = check_parity(network, files[1], inputs=files[2])
    assert report.passed, str(report)
    row = report.outputs[0]
    assert 20 < row.signal_to_noise < 60
    assert row.argmax_agreement >= 0.9
    assert "computes in 8 bits (" in " ".join(report.notes)
    assert "QuantizeLinear" in " ".join(report.notes)
    assert report.fault is None
    assert "signal to noise" in str(row)
    # Convolution, batch norm and ReLU are one operator, called by what its 8 bits hold.
    assert [*report.signal_to_noise] == LAYERS
    assert min(report.signal_to_noise.values()) > 20
    assert "of 4 layers, the least signal to noise has" in " ".join(report.notes)
    assert not check_parity(network, files[1], inputs=files[2], explain=None).signal_to_noise


def test_draws_are_those_that_a_calibration_covers(network, files):
    report = check_parity(network, files[1])
    assert {row.case for row in report.outputs} == {"drawn"}
    assert report.samples == 6
    assert report.outputs[0].signal_to_noise > 20


@pytest.mark.parametrize(("number", "layer"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 3)])
def test_wrong_scale_is_found_and_located(number, layer, network, files, tmp_path):
    proto = onnx.load(files[1])
    quantising = [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    name = quantising[number].input[1]
    tensor = next(tensor for tensor in proto.graph.initializer if tensor.name == name)
    wrong = np.asarray(numpy_helper.to_array(tensor) / np.float32(4))
    tensor.CopyFrom(numpy_helper.from_array(wrong, tensor.name))
    onnx.save(proto, tmp_path / "wrong.onnx")
    report = check_parity(network, tmp_path / "wrong.onnx", inputs=files[2])
    assert not report.passed
    assert report.outputs[0].signal_to_noise < 20
    assert report.fault.layers == (LAYERS[layer],)
    assert f"signal to noise below 20 dB is {LAYERS[layer]!r}: " in report.fault.detail
    two = check_files(files[0], tmp_path / "wrong.onnx", inputs=files[2])
    assert two.fault.value == (LAYERS[layer] if number else "Reshape")


def test_two_files_of_which_one_is_in_8_bits(files):
    report = check_files(files[0], files[1], inputs=files[2])
    assert report.passed, str(report)
    assert report.outputs[0].signal_to_noise > 20
    assert check_files(files[0], files[0]).outputs[0].signal_to_noise is None
    assert [*report.signal_to_noise] == ["Reshape", *LAYERS]
    assert "tensors, the least signal to noise has" in " ".join(report.notes)
    assert not check_files(files[0], files[0]).signal_to_noise


def test_float_file_is_not_in_8_bits(files):
    assert quantised_operators(onnx.load(files[0])) == ""


def judged(truth, found, *, quantised):
    return rule.compare(
        "y",
        "given",
        "CPUExecutionProvider",
        rule.Standard(truth, "float64", truth, "Keras", 2.0**-23, list),
        (found, found),
        quantised=quantised,
    )


def test_signal_to_noise_and_classes_are_both_asked(rng):
    truth = rng.normal(size=(100, 5))
    off = 0.05 * rng.normal(size=truth.shape)
    row = judged(truth, truth + off, quantised=True)
    assert row.signal_to_noise == pytest.approx(26, abs=1)
    assert row.passed
    assert not judged(truth, truth + off, quantised=False).passed
    assert not judged(truth, truth + 4 * off, quantised=True).passed
    assert not judged(truth, truth * np.nan, quantised=True).passed
    assert not dataclasses.replace(row, argmax_agreement=0.8).passed
    assert dataclasses.replace(row, argmax_agreement=0.8, samples=6).passed


def test_file_without_error_has_all_the_signal(rng):
    truth = rng.normal(size=(10, 5))
    row = judged(truth, truth, quantised=True)
    assert row.signal_to_noise == np.inf
    assert row.passed


def test_where_optimisations_change_the_numbers_is_told(network, files):
    row = check_parity(network, files[1]).outputs[0]
    rms = dataclasses.replace(row.optimised, rms=25 * row.onnx.rms)
    proto, batch = onnx.load(files[1]), [files[2][:2]]
    before = proto.SerializeToString()
    worse = dataclasses.replace(row, optimised=rms)
    told = notes_of_bits("1 QuantizeLinear", [worse], proto, ["image"], batch)
    assert "25 times as far from the truth" in told[1]
    assert "reduce_range" in told[1]
    assert proto.SerializeToString() == before
    same = dataclasses.replace(row, optimised=row.onnx)
    assert len(notes_of_bits("1 QuantizeLinear", [same], proto, ["image"], batch)) == 1


@pytest.mark.slow
def test_digits_keep_their_accuracy_in_8_bits(tmp_path):
    train, test, train_digits, test_digits = digits_cnn.load_data()
    model = digits_cnn.build()
    digits._train(model, train, train_digits, lambda _: None)
    export_onnx(model, tmp_path / "model.onnx")
    quantise(tmp_path, train[:256])
    report = check_parity(model, tmp_path / "int8.onnx", inputs=test)
    assert report.passed, str(report)
    assert report.outputs[0].argmax_agreement > 0.98
    session = onnxruntime.InferenceSession(tmp_path / "int8.onnx")
    found = session.run(None, {"image": test})[0].argmax(1)
    own = model.predict(test, verbose=0).argmax(1)
    assert (found == test_digits).mean() > (own == test_digits).mean() - 0.01


def test_a_file_in_8_bits_without_any_error_has_no_part_that_optimisations_change():
    """Plain, it is its own truth to the bit; fused, its convolution rounds in another way."""
    text = """<ir_version: 8, opset_import: ["": 17]>
        g (float[N,3,8,8] x) => (float[N,4,6,6] y)
        <float s = {0.02}, uint8 zero = {128}>
        { q = QuantizeLinear(x, s, zero) d = DequantizeLinear(q, s, zero) c = Conv(d, w)
          y = Mul(c, k) }"""
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (4, 3, 3, 3)), ("k", (4, 1, 1))):
        array = rng.normal(size=shape).astype(np.float32)
        proto.graph.initializer.append(numpy_helper.from_array(array, name))
    report = check_files(proto, proto)
    assert report.passed
    assert not [note for note in report.notes if "times as far" in note]
