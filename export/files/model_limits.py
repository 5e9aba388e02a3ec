"""What a config may ask for: variables while Keras builds the model, tensors when it runs.

A config is a few words, and says how large the layers are: `Dense(10**9)` asks for gigabytes before
Keras finds that the file has no weights for it, and `RepeatVector(10**12)` has no weights at all.

    bytes of all variables                  <= max(256 MiB, 8 * bytes of the stored weights)
    elements of a tensor in one sample      <= 2^30, where the sizes are known
"""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras

from .archives import FLOOR, ArchiveError

__all__ = ["limited_variables", "require_modest_tensors"]

SLOTS = 8  # a model without its optimizer's state still gets that, a few variables for each
BYTES = 4
LARGEST_TENSOR = 2**30


class _TooLarge(BaseException):
    """No Exception, so that neither a layer nor Keras takes it for a failure of its own."""


@contextlib.contextmanager
def limited_variables(stored: int) -> Iterator[None]:
    """Stop the first variable too many that is created in the block, before it is made.

    Args:
        stored: Bytes of the weights that there are.

    Raises:
        ArchiveError: If the variables would need more than these allow.
    """
    largest, total = max(FLOOR, SLOTS * stored), 0
    create = keras.Variable.__init__

    def create_within(
        self: Any, initializer: Any, shape: Any = None, *args: Any, **kw: Any
    ) -> None:
        nonlocal total
        if shape is not None and all(isinstance(size, int) for size in shape):
            total += BYTES * math.prod(shape)
            if total > largest:
                raise _TooLarge(f"a variable of shape {tuple(shape)}, {total:,} bytes by then")
        create(self, initializer, shape, *args, **kw)

    keras.Variable.__init__ = create_within
    try:
        yield
    except _TooLarge as e:
        raise ArchiveError(
            f"its config asks for {e}, where {stored:,} bytes of weights are stored"
        ) from e
    finally:
        keras.Variable.__init__ = create


def require_modest_tensors(model: Any) -> None:
    """Raise if a tensor of a functional or sequential model, nested ones too, is too large to make.

    Args:
        model: The model.

    Raises:
        ArchiveError: If it is.
    """
    functional = getattr(model, "_functional", None) or model  # a Sequential holds one
    for operation in getattr(functional, "operations", None) or []:
        for node in operation._inbound_nodes:
            for tensor in node.output_tensors:
                size = math.prod(n for n in tensor.shape[1:] if n is not None)
                if size > LARGEST_TENSOR:
                    raise ArchiveError(
                        f"its layer {operation.name!r} makes a tensor of shape {tensor.shape}"
                    )
        if isinstance(operation, keras.Model):
            require_modest_tensors(operation)
