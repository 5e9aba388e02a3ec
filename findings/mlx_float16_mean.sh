#!/usr/bin/env bash
# MLX 0.32.4 on a CPU, mlx.nn.BatchNorm and GroupNorm of float16 inputs.
#
# A good guess: a layer that keeps its statistics in float32 sums float16 inputs in float32, as PyTorch, Keras and ONNX
# Runtime do; a mean of ordinary activations cannot overflow.
# What happens: mx.mean adds up in float16, which ends at 65,504. 64 images of 32 x 32 with a mean of 1 behind a ReLU
# have a sum of 71,000 in each channel: the running mean becomes infinite, the running variance and the whole output
# NaN, with no error. Half as many images are right. GroupNorm over a map of 256 x 256 is NaN throughout. bfloat16 has
# the range, and is right.
# Seen: running mean inf and output NaN for 64 images, 1.08 for 32; mx.mean of 70,000 ones in float16 is inf.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check "mlx[cpu]==0.32.4" numpy==2.4.6
cd "$folder"
bin/python - <<'EOF'
import mlx.core as mx
import mlx.nn as nn
import numpy as np

images = np.maximum(np.random.default_rng(0).normal(1, 1, (64, 32, 32, 3)), 0)
truth = images.mean((0, 1, 2))


def trained(count: int, dtype) -> tuple[np.ndarray, float]:
    layer = nn.BatchNorm(3, momentum=1.0)  # the new statistics alone
    output = layer(mx.array(images[:count].astype(np.float32)).astype(dtype))
    return np.array(layer.running_mean), float(np.isnan(np.array(output.astype(mx.float32))).mean())


print("true mean", truth.round(2))
for count, dtype in ((64, mx.float16), (32, mx.float16), (64, mx.bfloat16)):
    mean, lost = trained(count, dtype)
    print(count, "images,", dtype, "running mean", mean, "share of NaN in the output", lost)
    if (count, dtype) == (64, mx.float16):
        assert np.isinf(mean).all() and lost == 1
    else:
        assert np.allclose(mean, truth, atol=0.05) and lost == 0

ones = mx.mean(mx.ones((70_000,), mx.float16)).item()
print("mean of 70,000 ones", ones)
assert ones == float("inf")

large_map = np.random.default_rng(1).normal(1, 1, (1, 256, 256, 4))
normed = np.array(nn.GroupNorm(2, 4)(mx.array(large_map.astype(np.float16))).astype(mx.float32))
print("share of NaN behind a group norm", np.isnan(normed).mean())
assert np.isnan(normed).all()
EOF
