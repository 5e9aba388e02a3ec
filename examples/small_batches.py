"""Good in training, bad in inference: batches of 4, momentum 0.99, few steps; and the cure.

Prints the test accuracy of the digits network with the running statistics that training left, and
after each way of estimating them anew from the same training images: `python -m
examples.small_batches`.
"""

import keras
import numpy as np

from keras_bn import estimate_population_statistics, train_inference_gap
from keras_bn.models import digits_cnn

SEEDS = range(5)
STEPS, BATCH_SIZE, MOMENTUM = 150, 4, 0.99
WAYS = {
    "paper": {"variance": "paper"},
    "pooled": {"variance": "pooled"},
    "paper, sequential": {"variance": "paper", "sequential": True},
    "pooled, sequential": {"variance": "pooled", "sequential": True},
}


def run(seed: int) -> tuple[dict[str, float], tuple[str, ...]]:
    """Train once.

    Args:
        seed: Of weights and batches.

    Returns:
        The test accuracy by way of estimating; the causes that `train_inference_gap` names.
    """
    train, test, train_digits, test_digits = digits_cnn.load_data()
    model = digits_cnn.build(seed, momentum=MOMENTUM)
    model.compile("adam", "sparse_categorical_crossentropy")
    chosen = np.random.default_rng(seed).permutation(len(train))[: STEPS * BATCH_SIZE]
    x, y = train[chosen], train_digits[chosen]
    model.fit(x, y, batch_size=BATCH_SIZE, verbose=0)

    def accuracy() -> float:
        return float(np.mean(model.predict(test, verbose=0).argmax(-1) == test_digits))

    gap = train_inference_gap(model, (x, y), batch_size=BATCH_SIZE, verbose=0)
    found = {"as trained": accuracy()}
    for name, options in WAYS.items():
        report = estimate_population_statistics(
            model, x, batch_size=BATCH_SIZE, verbose=0, **options
        )
        found[name] = accuracy()
        report.undo()
    return found, tuple(diagnosis.cause.name for diagnosis in gap.diagnoses)


def main() -> None:
    """Print a table of the mean accuracy, its range over the seeds, and the diagnoses."""
    results, causes = zip(*(run(seed) for seed in SEEDS), strict=True)
    print("| running statistics | test accuracy | lowest | highest |")
    print("|---|---|---|---|")
    for name in results[0]:
        values = [result[name] for result in results]
        print(f"| {name} | {np.mean(values):.3f} | {min(values):.3f} | {max(values):.3f} |")
    print(f"\nDiagnoses: {', '.join(sorted(set().union(*causes)))}")


if __name__ == "__main__":
    keras.utils.disable_interactive_logging()
    main()
