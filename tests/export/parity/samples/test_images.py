"""Folders of images as samples: what the model wants, and what is refused."""

import os
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn.export import ExportError
from keras_bn.export.parity.samples import images
from keras_bn.export.parity.samples.images import load_images
from tests.tolerances import assert_close


def model_of(*layers, shape=(4, 6, 3), name="mine", dtype="float32"):
    image = x = keras.Input(shape, name="image", dtype=dtype)
    for layer in layers:
        x = layer(x)
    return keras.Model(image, keras.layers.Flatten()(x), name=name)


def drawn(rng, height=4, width=6, channels=3):
    return rng.integers(0, 256, (height, width, channels), dtype=np.uint8)


def png(pixels):
    return tf.io.encode_png(pixels).numpy()


def bmp(pixels):
    height, width, _ = pixels.shape
    rows = [row[:, ::-1].tobytes().ljust(-(-3 * width // 4) * 4, b"\0") for row in pixels[::-1]]
    body = b"".join(rows)
    header = struct.pack("<IHHI", 54 + len(body), 0, 0, 54)
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(body), 0, 0, 0, 0)
    return b"BM" + header + info + body


def gif(frames=1, width=2, height=1, later=(2, 1)):
    """Return frames of a red and a blue pixel, the later ones of the size they declare."""
    content = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\x00\x00"
    content += b"\xff\x00\x00\x00\x00\xff"
    content += b"\x21\xf9\x04\x00\x00\x00\x00\x00"
    for i in range(frames):
        size = (2, 1) if i == 0 else later
        content += b"\x2c" + struct.pack("<HHHH", 0, 0, *size) + b"\x00\x02\x02\x44\x0a\x00"
    return content + b"\x3b"


@pytest.fixture
def rescaled():
    return model_of(keras.layers.Rescaling(1 / 255))


def write(folder, **contents):
    for name, content in contents.items():
        path = folder / name.replace("_", ".").replace("slash", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return folder


def test_pixels_in_the_order_of_names(tmp_path, rng, rescaled):
    first, second, third = (drawn(rng) for _ in range(3))
    write(tmp_path, b_PNG=png(second), a_png=png(first), cslashx_bmp=bmp(third), notes_txt=b"notes")
    samples, words = load_images(tmp_path, rescaled)
    assert_close(samples["image"], np.stack([first, second, third]).astype(np.float32), 0)
    assert words == f"3 images of {str(tmp_path)!r}, resized to 4 x 6, pixels from 0 to 255"


def test_jpeg_and_gif(tmp_path):
    grey = np.full((8, 8, 3), 100, np.uint8)
    model = model_of(keras.layers.Rescaling(1.0), shape=(None, None, 3))
    write(tmp_path, a_jpg=tf.io.encode_jpeg(grey).numpy())
    assert_close(load_images(tmp_path, model)[0]["image"], grey[None].astype(np.float32), 0.01)
    (tmp_path / "a.jpg").unlink()
    write(tmp_path, a_gif=gif(frames=3))
    samples, words = load_images(tmp_path, model)
    np.testing.assert_array_equal(samples["image"], [[[[255, 0, 0], [0, 0, 255]]]])
    assert ", of 1 x 2," in words


def test_images_are_resized(tmp_path, rescaled):
    write(tmp_path, a_png=png(np.full((9, 5, 3), 7, np.uint8)))
    assert_close(load_images(tmp_path, rescaled)[0]["image"], np.full((1, 4, 6, 3), 7.0), 1e-6)


@pytest.mark.parametrize("encode", [png, bmp])
def test_grey_input_gets_grey(tmp_path, encode):
    write(tmp_path, a_png=encode(np.full((4, 6, 3), 90, np.uint8)))
    samples, _ = load_images(tmp_path, model_of(shape=(4, 6, 1)), preprocess="0-1")
    assert_close(samples["image"], np.full((1, 4, 6, 1), 90 / 255), 0.01)


def test_rgb_input_gets_grey_three_times(tmp_path, rescaled, rng):
    pixels = drawn(rng, channels=1)
    write(tmp_path, a_png=png(pixels))
    samples, _ = load_images(tmp_path, rescaled)
    np.testing.assert_array_equal(samples["image"][0], np.repeat(pixels, 3, -1))


def test_alpha_is_dropped(tmp_path, rescaled, rng):
    pixels = drawn(rng, channels=4)
    write(tmp_path, a_png=png(pixels))
    np.testing.assert_array_equal(load_images(tmp_path, rescaled)[0]["image"][0], pixels[..., :3])


def test_channels_first(tmp_path, rng):
    pixels = drawn(rng)
    write(tmp_path, a_png=png(pixels))
    samples, _ = load_images(tmp_path, model_of(shape=(3, 4, 6)), preprocess="none")
    np.testing.assert_array_equal(samples["image"][0], pixels.transpose(2, 0, 1))


def test_integers_for_an_integer_input(tmp_path, rng):
    pixels = drawn(rng)
    write(tmp_path, a_png=png(pixels))
    samples, _ = load_images(tmp_path, model_of(dtype="uint8"))
    assert samples["image"].dtype == np.uint8
    np.testing.assert_array_equal(samples["image"][0], pixels)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("resnet50", "resnet"),
        ("ResNet50V2", "resnet_v2"),
        ("mobilenetv2_1.00_224", "mobilenet_v2"),
        ("mobilenet_1.00_224", "mobilenet"),
        ("densenet121", "densenet"),
        ("NASNet", "nasnet"),
    ],
)
def test_family_is_known_by_its_name(tmp_path, rng, name, family):
    pixels = drawn(rng)
    write(tmp_path, a_png=png(pixels))
    samples, words = load_images(tmp_path, model_of(name=name))
    module = getattr(keras.applications, family)
    expected = module.preprocess_input(pixels[None].astype(np.float32))
    assert_close(samples["image"], expected, 1e-6)
    assert words.endswith(f"as keras.applications.{family} preprocesses")


@pytest.mark.parametrize("family", ["resnet", "densenet", "xception"])
def test_family_can_be_given(tmp_path, rng, family):
    pixels = drawn(rng)
    write(tmp_path, a_png=png(pixels))
    module = getattr(keras.applications, family)
    samples, _ = load_images(tmp_path, model_of(), preprocess=family)
    expected = module.preprocess_input(pixels[None].astype(np.float32))
    assert_close(samples["image"], expected, 1e-6)


@pytest.mark.parametrize(("mean", "known"), [(120.0, True), (0.45, False)])
def test_normalization_of_pixels_is_told_from_one_of_fractions(tmp_path, rng, mean, known):
    layer = keras.layers.Normalization(mean=mean, variance=1.0)
    write(tmp_path, a_png=png(drawn(rng)))
    if known:
        assert load_images(tmp_path, model_of(layer))[1].endswith("pixels from 0 to 255")
    else:
        assert_refused(tmp_path, model_of(layer), "--preprocess none|0-1|FAMILY")


def assert_refused(folder, model, *texts, **options):
    with pytest.raises(ExportError) as caught:
        load_images(folder, model, **options)
    message = str(caught.value)
    assert "\n" not in message
    for text in texts:
        assert text in message


@pytest.mark.parametrize(
    ("model", "options", "text"),
    [
        (lambda: model_of(), {}, "'mine', whose input nothing reads that expects pixels"),
        (lambda: model_of(name="efficientnetb0"), {}, "--preprocess"),  # built without its layers
        (lambda: model_of(), {"preprocess": "resnet18"}, "none, 0-1 or one of convnext"),
        (lambda: model_of(), {"preprocess": "imagenet"}, "Received: 'imagenet'"),
        (lambda: model_of(dtype="uint8"), {"preprocess": "0-1"}, "none for an input of uint8"),
        (lambda: model_of(shape=(4, 6, 5)), {}, "of 1 or 3 channels"),
        (lambda: model_of(shape=(4, 3)), {}, "rank 4"),
    ],
)
def test_what_the_numbers_are_is_not_guessed(tmp_path, rng, model, options, text):
    write(tmp_path, a_png=png(drawn(rng)))
    assert_refused(tmp_path, model(), text, **options)


def test_two_sizes_where_none_is_stated(tmp_path, rng):
    write(tmp_path, a_png=png(drawn(rng)), b_png=png(drawn(rng, 5, 5)))
    model = model_of(keras.layers.Rescaling(1.0), shape=(None, None, 3))
    assert_refused(tmp_path, model, "must have one size", "a.png' of 4 x 6", "b.png' of 5 x 5")


def png_of_size(width, height):
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in
              (head, data, b"IEND"))  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


HOSTILE = {
    "png-bomb": (png_of_size(60_000, 60_000), "60,000 x 60,000 pixels"),
    "png-no-pixels": (png_of_size(0, 5), "0 x 5 pixels"),
    "png-short": (png_of_size(60, 40), "InvalidArgumentError"),
    "png-cut": (png(np.zeros((40, 60, 3), np.uint8))[:60], "InvalidArgumentError"),
    "header-cut": (b"\x89PNG\r\n\x1a\n\0\0", "it ends within its header"),
    "jpeg-cut": (tf.io.encode_jpeg(np.zeros((40, 60, 3), np.uint8)).numpy()[:300], "Error"),
    "bmp-bomb": (bmp(np.zeros((4, 6, 3), np.uint8)).replace(
        struct.pack("<ii", 6, 4), struct.pack("<ii", 60_000, -60_000)), "60,000 x 60,000"),
    "bmp-cut": (bmp(np.zeros((4, 6, 3), np.uint8))[:60], "InvalidArgumentError"),
    "gif-bomb": (gif(width=65_535, height=65_535), "65,535 x 65,535"),
    "gif-cut": (gif()[:22], "it ends within its header"),
    "gif-of-no-frame": (gif(frames=0), "it has no frame"),
    "text": (b"hello", "no PNG, JPEG, BMP or GIF file"),
    "empty": (b"", "no PNG, JPEG, BMP or GIF file"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "text"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_image(tmp_path, rescaled, content, text):
    write(tmp_path, a_png=content)
    assert_refused(tmp_path, rescaled, repr(str(tmp_path / "a.png")), text)


def test_later_frames_are_not_unpacked(tmp_path, rescaled):
    write(tmp_path, a_gif=gif(frames=1000, later=(65_535, 65_535)))
    assert load_images(tmp_path, rescaled)[0]["image"].shape == (1, 4, 6, 3)


def test_folder_that_is_none(tmp_path, rescaled):
    assert_refused(tmp_path / "nowhere", rescaled, "No such file")
    assert_refused(tmp_path, rescaled, "it has no file ending in .bmp, .gif")


def test_link_and_pipe_are_not_followed(tmp_path, rng, rescaled):
    (inner := tmp_path / "inner").mkdir()
    write(tmp_path, a_png=png(drawn(rng)))
    (inner / "link.png").symlink_to(tmp_path / "a.png")
    assert_refused(inner, rescaled, "link.png': it is no ordinary file")
    (inner / "link.png").unlink()
    os.mkfifo(inner / "pipe.png")
    assert_refused(inner, rescaled, "pipe.png': it is no ordinary file")


def test_too_many_images(tmp_path, rng, rescaled, monkeypatch):
    for i in range(5):
        write(tmp_path, **{f"a{i}_png": png(drawn(rng))})
    monkeypatch.setattr(images, "MOST_IMAGES", 4)
    assert_refused(tmp_path, rescaled, "more than 4 images; take fewer")
    monkeypatch.setattr(images, "MOST_IMAGES", 5)
    monkeypatch.setattr(images, "MOST_BYTES", 1439)
    assert_refused(tmp_path, rescaled, "at most 1,439 bytes", "5 of shape (4, 6, 3), 1,440 bytes")
