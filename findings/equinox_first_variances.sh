#!/usr/bin/env bash
# Equinox 0.13.8 with JAX 0.10.2 on a CPU, eqx.nn.BatchNorm(mode="batch"), the mode that Equinox recommends, in inference
# after a few steps of training.
#
# A good guess: stored statistics lie between those they began with and those of the batches; where the average is freed
# of its start, as in Adam and in haiku, they are the batches' own from the first step.
# What happens: mean and variance are divided by 1 - momentum^steps, which is right for an average that began at 0. The
# mean does, the variance begins at 1, so that momentum^n / (1 - momentum^n) is added to it: 99 after the first of the
# default momentum of 0.99, 1.0 after 69 steps, 0.01 after 460. Training does not show it. The mode "ema" is right.
# Seen: batches of variance 1 that never change: inference takes it for 100.0, 10.46, 1.58, 1.0 after 1, 10, 100 and
# 1000 steps, "ema" for 1.0 each time. Its variance is the biased one in both modes; the documentation says unbiased.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check equinox==0.13.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
"$folder/bin/python" -W ignore - <<'EOF'
import equinox
import jax
import numpy as np

x = np.float32([[1], [3]])
STEPS = (1, 10, 100, 1000)


def run(layer: equinox.nn.BatchNorm, state: equinox.nn.State) -> tuple[jax.Array, equinox.nn.State]:
    return jax.vmap(layer, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)


def variances(mode: str) -> list[float]:
    """The variance that inference divides by, told from its output, after each of STEPS."""
    layer, state = equinox.nn.make_with_state(equinox.nn.BatchNorm)(1, "batch", mode=mode)
    in_inference = equinox.nn.inference_mode(layer)
    train = jax.jit(lambda state: run(layer, state)[1])
    seen = []
    for step in range(1, STEPS[-1] + 1):
        state = train(state)
        if step in STEPS:
            low, high = run(in_inference, state)[0].ravel()
            np.testing.assert_allclose(low + high, 0, atol=1e-3)  # the mean is 2
            seen.append(float((2 / (high - low)) ** 2 - layer.eps))
    return seen


batch, ema = variances("batch"), variances("ema")
print("variance in inference after", STEPS, "steps: batch", np.round(batch, 3).tolist(), "ema", np.round(ema, 3).tolist())
decay = 0.99 ** np.array(STEPS)
np.testing.assert_allclose(batch, 1 + decay / (1 - decay), rtol=1e-3)
np.testing.assert_allclose(ema, [1] * len(STEPS), rtol=1e-4)
EOF
