"""The one place for tolerances, each relative to the largest magnitude of the expected values."""

import numpy as np

FLOAT32 = 1e-5
FLOAT64 = 1e-12
HALF = {"float16": 2e-3, "bfloat16": 1.6e-2}  # twice the spacing at 1


def assert_close(actual, expected, tolerance=FLOAT32):
    """Assert that arrays agree to `tolerance` of the largest magnitude expected."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max(initial=0.0) or 1.0
    np.testing.assert_array_less(np.abs(actual - expected), tolerance * scale + 1e-300)
