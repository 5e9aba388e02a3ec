#!/usr/bin/env bash
# haiku 0.0.17 with JAX 0.10.2 on a CPU, hk.BatchNorm right after init, beside flax 0.12.8 (linen).
#
# A good guess: the input of init gives shapes, its values do not matter, so that zeros do, as in flax; a layer that
# has not been trained has mean 0 and variance 1, and passes its input through in inference.
# What happens: init runs a step of training and stores the moments of its input, whatever they are: zeros make a variance
# of 0, and inference multiplies by 316 until a first step, which then replaces them whole (counter 0) instead of by
# 1 - decay_rate. Whoever loads weights without state, or compares layers before training, sees it; init with
# is_training=False raises. Nothing warns.
# Seen: x = [1, 3] in inference: [316.2, 948.7] in haiku after init on zeros, [-1, 1] after init on x, [1, 3] in flax
# after either; after a step on x + 10 haiku's mean is 12, flax's 0.12.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check dm-haiku==0.0.17 flax==0.12.8 jax==0.10.2 jaxlib==0.10.2 \
    numpy==2.4.6
"$folder/bin/python" -W ignore - <<'EOF'
import flax.linen
import haiku
import jax
import numpy as np

x = np.float32([[1], [3]])
key = jax.random.key(0)
in_haiku = haiku.transform_with_state(lambda x, training: haiku.BatchNorm(True, True, decay_rate=0.99)(x, training))
in_flax = flax.linen.BatchNorm()
for name, first, wanted in (("zeros", np.zeros_like(x), [1e5**0.5, 3 * 1e5**0.5]), ("x", x, [-1, 1])):
    weights, state = in_haiku.init(key, first, True)
    (haiku_output, _), variables = in_haiku.apply(weights, state, None, x, False), in_flax.init(key, first, True)
    flax_output = in_flax.apply(variables, x, use_running_average=True)
    print(f"inference after init on {name}: haiku", haiku_output.ravel(), "flax", flax_output.ravel())
    np.testing.assert_allclose(haiku_output.ravel(), wanted, rtol=1e-4)
    np.testing.assert_allclose(flax_output, x, rtol=1e-4)
    _, state = in_haiku.apply(weights, state, None, x + 10, True)
    _, stored = in_flax.apply(variables, x + 10, use_running_average=False, mutable="batch_stats")
    means = [state["batch_norm/~/mean_ema"]["average"].item(), stored["batch_stats"]["mean"].item()]
    print("    stored mean after a step on x + 10: haiku, flax", np.round(means, 4).tolist())
    np.testing.assert_allclose(means, [12, 0.12], rtol=1e-4)
try:
    in_haiku.init(key, x, False)
except ValueError as error:
    print("init with is_training=False:", str(error).splitlines()[0])
else:
    raise AssertionError("init with is_training=False passes")
EOF
