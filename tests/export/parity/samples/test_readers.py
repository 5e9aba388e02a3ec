import keras
import numpy as np
import pytest

from keras_bn.export import check_parity, export_onnx
from keras_bn.export.parity.samples.readers import expects_pixels, readers_of
from tests.export.onnx_edits import change_weight, scale_first

L = keras.layers


def augmentation():
    return keras.Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.1), L.RandomZoom(0.1)])


def read_by(*steps, dtype="float32"):
    """Return the names of the classes that read an input behind some steps."""
    x = image = keras.Input((8, 8, 3), dtype=dtype)
    for step in steps:
        x = step(x)
    (readers,) = readers_of(keras.Model(image, x)).values()
    return [type(reader).__name__ for reader in readers], any(map(expects_pixels, readers))


@pytest.mark.parametrize(
    "step",
    [
        L.Rescaling(1 / 255),
        lambda x: x / 255.0,
        lambda x: x / 127.5 - 1.0,
        lambda x: x * (1 / 255),
        lambda x: keras.ops.multiply(np.float32(1 / 255), x),
        lambda x: x - np.array([123.7, 116.8, 103.9], np.float32),
        keras.applications.mobilenet_v2.preprocess_input,
        keras.applications.resnet.preprocess_input,
        keras.applications.densenet.preprocess_input,
    ],
)
@pytest.mark.parametrize(
    "before",
    [
        (),
        (L.Resizing(4, 4), L.CenterCrop(3, 3)),
        (L.ZeroPadding2D(), L.RandAugment((0, 255)), L.Cropping2D()),
        (augmentation(),),
        (keras.Sequential([augmentation(), L.Dropout(0.5)]),),
    ],
    ids=["first", "resized", "padded", "augmented", "nested"],
)
def test_pixels_are_known(step, before):
    assert read_by(*before, step)[1]


@pytest.mark.parametrize(
    "step",
    [
        L.Conv2D(2, 1),
        lambda x: x / 2.0,
        lambda x: 255.0 / x,
        lambda x: x * 3.0,
        lambda x: x - 1.0,
        lambda x: x * 0.0,
        lambda x: x / keras.ops.sum(x),
        L.ReLU(),
    ],
)
def test_other_readers_expect_no_pixels(step):
    assert not read_by(augmentation(), step)[1]


def test_every_reader_is_found_once_in_every_branch():
    def branches(x):
        flat = L.Reshape((-1,))(x)
        return [L.Dense(1)(flat), L.Dense(1)(L.Dropout(0.1)(flat)), L.Conv2D(1, 1)(x)]

    assert sorted(read_by(branches)[0]) == ["Conv2D", "Dense", "Dense"]


def test_values_pass_a_nested_model_to_the_right_output():
    a, b = keras.Input((4,)), keras.Input((4,))
    swap = keras.Model([a, b], [L.Dropout(0.1)(b), L.Dropout(0.1)(a)])
    x, y = keras.Input((4,)), keras.Input((4,))
    left, right = swap([x, y])
    model = keras.Model([x, y], [L.Dense(1)(left), L.ReLU()(right)])
    found = [
        [type(reader).__name__ for reader in readers] for readers in readers_of(model).values()
    ]
    assert found == [["ReLU"], ["Dense"]]


def test_inputs_of_a_nested_model_may_be_given_by_name():
    a, b = keras.Input((4,), name="z"), keras.Input((4,), name="a")
    inner = keras.Model([a, b], [L.Dense(1)(a), L.ReLU()(b)])
    x, y = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([x, y], inner({"z": x, "a": y}))
    found = [
        [type(reader).__name__ for reader in readers] for readers in readers_of(model).values()
    ]
    assert found == [["Dense"], ["ReLU"]]


def test_nested_model_with_a_call_of_its_own_reads_its_input():
    class Twice(keras.Model):
        def call(self, x, training=None, mask=None):
            return [super().call(x)] * 2

        def compute_output_spec(self, x, **_):
            return [keras.KerasTensor(x.shape), keras.KerasTensor(x.shape)]

    x = keras.Input((8, 8, 3))
    inner = Twice(x, L.Dropout(0.1)(x))
    assert read_by(lambda x: inner(x)[0]) == (["Twice"], False)


def test_fault_behind_augmentation_is_seen_by_the_outputs_alone(tmp_path):
    image = keras.Input((12, 12, 3), name="image")
    x = L.Rescaling(1 / 255)(augmentation()(image))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, name="conv")(x)))
    model = keras.Model(image, L.Dense(3)(L.GlobalAveragePooling2D()(x)))
    path = tmp_path / "model.onnx"
    assert "as pixels are" in export_onnx(model, path).parity.drawn["image"]
    change_weight(path, "conv/kernel", scale_first(1.001))
    assert not check_parity(model, path, explain=False).passed
