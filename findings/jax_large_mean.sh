#!/usr/bin/env bash
# flax 0.12.8, dm-haiku 0.0.17, jax 0.10.2 and equinox 0.13.8 on a CPU: features of mean 10,000 and deviation 2
# in float32, as years, pressures and counters come.
#
# A good guess: normalising gives deviation 1, off by about the mean's rounding: 1e4 * 6e-8 / 2, some 3e-4.
# What happens: three of the four take the variance as E[x^2] - E[x]^2, whose rounding here is larger than the
# variance. flax clips it at 0 and so divides by sqrt(epsilon), BatchNorm and LayerNorm alike; haiku divides by the
# root of a negative number; jax.nn.standardize is off likewise. equinox subtracts the mean first and is right.
# Seen, largest error of outputs of size 2: flax BatchNorm 1180, flax LayerNorm 716, haiku BatchNorm NaN;
# jax.nn.standardize leaves a deviation of 541, not 1. flax with use_fast_variance=False and equinox: 3e-4.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check \
    flax==0.12.8 dm-haiku==0.0.17 equinox==0.13.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$folder/bin/python" -W ignore - <<'EOF'
import equinox
import flax.linen
import haiku
import jax
import numpy as np

x = np.random.default_rng(0).normal(1e4, 2, (8, 4)).astype(np.float32)
key = jax.random.PRNGKey(0)


def error(y: jax.Array, axis: int) -> float:
    exact = x.astype(np.float64)
    exact = (exact - exact.mean(axis, keepdims=True)) / np.sqrt(exact.var(axis, keepdims=True) + 1e-5)
    return float(np.abs(np.asarray(y, np.float64) - exact).max())


layer = flax.linen.BatchNorm(use_running_average=False, epsilon=1e-5)
flax_batch = error(layer.apply(layer.init(key, x), x, mutable=["batch_stats"])[0], 0)
layer = flax.linen.BatchNorm(use_running_average=False, epsilon=1e-5, use_fast_variance=False)
flax_slow = error(layer.apply(layer.init(key, x), x, mutable=["batch_stats"])[0], 0)
layer = flax.linen.LayerNorm(epsilon=1e-5)
flax_layer = error(layer.apply(layer.init(key, x), x), 1)

net = haiku.transform_with_state(lambda x: haiku.BatchNorm(True, True, 0.99)(x, is_training=True))
haiku_batch = error(net.apply(*net.init(key, x), None, x)[0], 0)

layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(4, axis_name="batch", mode="batch")
apply = jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
equinox_batch = error(apply(jax.numpy.asarray(x), state)[0], 0)

wide = np.asarray(jax.nn.standardize(jax.numpy.asarray(x), axis=0)).std(0).max()

print(f"flax BatchNorm {flax_batch:.3g}, with use_fast_variance=False {flax_slow:.3g}; LayerNorm {flax_layer:.3g}")
print(f"haiku BatchNorm {haiku_batch}; equinox BatchNorm {equinox_batch:.3g}; jax.nn.standardize, deviation {wide:.3g}")
assert flax_batch > 100 and flax_layer > 100 and wide > 100
assert np.isnan(haiku_batch)
assert flax_slow < 1e-2 and equinox_batch < 1e-2
EOF
