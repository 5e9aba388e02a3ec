"""The bytes of an image -> its pixels, once its header has said that they are few enough.

    PNG     size from its first chunk
    JPEG    size from libjpeg, which reads as far as the frame header
    BMP     size from its header
    GIF     cut after its first frame, so that no other is unpacked

TensorFlow decodes. It would make room for whatever a header declares, and for every frame.
"""

import struct
from typing import Any

import tensorflow as tf

from ...files.archives import ArchiveError

__all__ = ["LARGEST_FILE", "decoded"]

LARGEST_FILE = 2**28  # bytes
LARGEST_IMAGE = 2**26  # pixels
PNG, JPEG, BMP, GIF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"GIF8"
GIF_TABLE, GIF_EXTENSION, GIF_FRAME, GIF_END = 0x80, 0x21, 0x2C, b"\x3b"


def decoded(content: bytes, channels: int) -> Any:
    """Decode an image.

    Args:
        content: A whole PNG, JPEG, BMP or GIF file.
        channels: 1 for grey, 3 for RGB; what else the image has is converted, alpha is dropped.

    Returns:
        A uint8 tensor of shape (height, width, channels).

    Raises:
        ArchiveError: If it is no such file, is cut off in its header, or has too many pixels.
        tensorflow.errors.OpError: If it is damaged.
    """
    try:
        width, height = _size(content)
        if content.startswith(GIF):
            content, *frame = _first_frame(content)
            width, height = max(width, frame[0]), max(height, frame[1])
    except (struct.error, IndexError) as e:
        raise ArchiveError("it ends within its header") from e
    if not 0 < width * height <= LARGEST_IMAGE:
        raise ArchiveError(
            f"its header declares {width:,} x {height:,} pixels, "
            f"which must be 1 to {LARGEST_IMAGE:,} in all"
        )
    free = content.startswith((PNG, JPEG))  # the other decoders cannot convert
    image = tf.io.decode_image(content, channels if free else 0, expand_animations=False)
    image = image[..., :3] if image.shape[-1] > 3 else image
    if image.shape[-1] == 3 and channels == 1:
        return tf.image.rgb_to_grayscale(image)
    return tf.image.grayscale_to_rgb(image) if image.shape[-1] < channels else image


def _size(content: bytes) -> tuple[int, int]:
    """Return the width and height that a header declares."""
    if content.startswith(PNG):
        return struct.unpack_from(">II", content, 16)
    if content.startswith(GIF):
        return struct.unpack_from("<HH", content, 6)
    if content.startswith(BMP):
        width, height = struct.unpack_from("<ii", content, 18)
        return width, abs(height)  # negative where the first row is on top
    if content.startswith(JPEG):
        height, width, _ = tf.io.extract_jpeg_shape(content).numpy().tolist()
        return width, height
    raise ArchiveError("it is no PNG, JPEG, BMP or GIF file")


def _first_frame(content: bytes) -> tuple[bytes, int, int]:
    """Return a GIF without what follows its first frame, and the frame's right and lower edge."""
    at = 13 + _table(content[10])
    while content[at] == GIF_EXTENSION:
        at = _after_blocks(content, at + 2)
    if content[at] != GIF_FRAME:
        raise ArchiveError("it has no frame")
    left, top, width, height = struct.unpack_from("<HHHH", content, at + 1)
    end = _after_blocks(content, at + 11 + _table(content[at + 9]))
    return content[:end] + GIF_END, left + width, top + height


def _table(flags: int) -> int:
    """Return the bytes of the table of colours that flags announce."""
    return 3 << (flags & 7) + 1 if flags & GIF_TABLE else 0


def _after_blocks(content: bytes, at: int) -> int:
    while content[at]:
        at += 1 + content[at]
    return at + 1
