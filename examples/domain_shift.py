"""Digits that look different: where the shift shows, and what adapting the statistics mends.

The digits network, trained on clean images, meets shifted ones. Prints the accuracy before and
after `adapt_statistics` on unlabelled shifted images, and which layer `measure_covariate_shift`
ranks first: `python -m examples.domain_shift`.
"""

import keras
import numpy as np

from keras_bn import adapt_statistics, measure_covariate_shift
from keras_bn.models import digits_cnn

SEED, EPOCHS, BATCH_SIZE = 0, 15, 32


def contrast(x: np.ndarray) -> np.ndarray:
    """Halve the contrast around grey."""
    return 0.5 + 0.3 * (x - 0.5)


def inversion(x: np.ndarray) -> np.ndarray:
    """Blend the image with its negative."""
    return 0.7 * x + 0.3 * (1 - x)


def blur(x: np.ndarray) -> np.ndarray:
    """Average over 3 x 3 pixels."""
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return np.mean([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=0)


def noise(x: np.ndarray) -> np.ndarray:
    """Add Gaussian noise."""
    return x + np.random.default_rng(SEED).normal(0, 0.3, x.shape)


SHIFTS = {
    "none": np.copy,
    "contrast": contrast,
    "inversion": inversion,
    "blur": blur,
    "noise": noise,
}


def run() -> dict[str, dict[str, float | str]]:
    """Train on clean digits and adapt to each shift in turn.

    Returns:
        For each shift: the accuracy before and after adapting, fully and by half; the divergence at
        the first layer that the model calls; the layer that is ranked first, and its divergence.
    """
    train, test, train_digits, test_digits = digits_cnn.load_data()
    model = digits_cnn.build(SEED)
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(train, train_digits, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    found: dict[str, dict[str, float | str]] = {}
    for name, shift in SHIFTS.items():
        unlabelled, shifted = (shift(x).astype(np.float32) for x in (train, test))

        def accuracy(x: np.ndarray = shifted) -> float:
            return float(np.mean(model.predict(x, verbose=0).argmax(-1) == test_digits))

        report = measure_covariate_shift(model, unlabelled, verbose=0)
        row: dict[str, float | str] = {"before": accuracy()}
        for column, strength in (("after", 1.0), ("by half", 0.5)):
            adapted = adapt_statistics(model, unlabelled, strength=strength, verbose=0)
            row[column] = accuracy()
            adapted.undo()
        row["first KL"] = report.layers[0].mean_divergence
        row["ranked first"] = report.ranking[0].layer
        row["its KL"] = report.ranking[0].mean_divergence
        found[name] = row
    return found


def main() -> None:
    """Print a table with a row for each shift."""
    found = run()
    print(
        "| shift | accuracy before | after | by half "
        "| KL at the first layer, nats | ranked first | its KL, nats |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, row in found.items():
        figures = " | ".join(f"{row[column]:.3f}" for column in ("before", "after", "by half"))
        first, its = f"{row['first KL']:.2f}", f"{row['its KL']:.2f}"
        print(f"| {name} | {figures} | {first} | {row['ranked first']} | {its} |")


if __name__ == "__main__":
    main()
