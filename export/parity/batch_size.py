"""How many samples a model can run at once in a bounded memory.

While a functional model runs, it holds what every layer returns, in float64 for the truth. A
ResNet50 takes 0.2 GB a sample so; 63 at once would be the end of many a machine.
"""

import keras

from ..runtime.session import Samples
from ..signature import Signature
from .reference.intermediates import Recorder
from .reference.keras_runs import in_keras
from .samples.kinds import LARGEST_BATCH
from .samples.refusal import cannot_run

__all__ = ["largest_batch"]

MEMORY = 2**30  # bytes that what the layers return may take


def largest_batch(model: keras.Model, signature: Signature, sample: Samples) -> int:
    """Return an odd number of samples, `LARGEST_BATCH` at most.

    Args:
        model: The model; its state stays as it is.
        signature: What it is called with.
        sample: One sample, to run.

    Raises:
        ExportError: If Keras cannot run on it.
    """
    with Recorder(model).recording(set()) as notes:
        try:
            in_keras(model, signature)[0](sample)
        except Exception as e:  # running a model runs the code of every layer
            raise cannot_run([array.shape for array in sample], e) from e
    size = MEMORY // max(sum(item.bytes for item in notes), 1)
    return min(max(size - 1, 0) | 1, LARGEST_BATCH)
