"""Signal to noise of every layer in a file that computes in 8 bits, in dB.

    20 log10( rms(truth) / rms(tensor - truth) )

of the tensor that holds the layer's output, or that of what was folded into it (`matching.py`), as
its readers see it: behind the 8 bits.
Tensors that a moved batch norm has rescaled are left out: no fresh export holds the same numbers.
"""

from pathlib import Path

import keras
import onnx

from ...runtime.session import Samples
from ...signature import Signature
from ..measure import is_rescaled, signal_to_noise
from ..quantised import as_read
from .localise import KerasSide, Side, portions
from .matching import Record, arranged, best_match
from .taps import Taps

__all__ = ["layers_in_decibels"]

RESCALED = 0.25  # of the RMS error: what a factor and an offset per channel may leave, beside noise


def layers_in_decibels(
    model: keras.Model, signature: Signature, path: Path, batch: Samples
) -> dict[str, float]:
    """Measure the layers of a model in a file.

    Args:
        model: The model.
        signature: What it is called with.
        path: The file.
        batch: Inputs to run.

    Returns:
        By path, in the order of the calls; of a layer that is called more than once, the least.
    """
    side = KerasSide(model, signature, batch)
    shapes = side.record(set())
    inputs = [spec.name for spec in signature.specs]
    file = Side(Taps(path, model), shapes, inputs, batch)
    read = as_read(onnx.load(path, load_external_data=False))
    found: dict[int, float] = {}
    for portion in portions(file.offers, {}, shapes):
        wanted = {place for places in file.offers_of(portion) for place in places}
        record = Record(side.record(wanted, wide=True), [], 0.0)
        arrays = file.taps.runner([read.get(value, value) for value in portion], inputs)(batch)
        for value, array in zip(portion, arrays, strict=True):
            match = best_match(array, file.offers[value], record)
            true = None if match is None else record.truth[match.place].values
            if match is None or true is None:
                continue
            held = arranged(array, match.order, true.shape)
            if held is None or is_rescaled(true, held, RESCALED):
                continue
            signal = signal_to_noise(true, held)
            found[match.place] = max(found.get(match.place, signal), signal)
    layers: dict[str, float] = {}
    for place, signal in sorted(found.items()):
        layer = shapes[place].layer
        layers[layer] = min(layers.get(layer, signal), signal)
    return layers
