#!/usr/bin/env bash
# Paddle 3.3.1 and MindSpore 2.10.0 on a CPU, BatchNorm in training on one value per channel.
#
# A good guess: as in PyTorch, whose names both layers bear, a batch of one sample behind a dense layer raises; or, as in
# Keras, its variance is 0 and its output beta.
# What happens: Paddle returns the input as it is, without gamma, beta or the mean, gives gamma a gradient of 0 and
# leaves the running statistics; the same sample in inference is normalised. MindSpore returns beta and makes the moving
# variance NaN (0 times m / (m - 1)), so that every later inference is NaN. Neither raises or warns.
# Seen: for x = [5, -1, 0], gamma 2 and beta 7, Paddle gives [5, -1, 0] in training, [17, 5, 7] in inference; MindSpore
# [7, 7, 7] and a moving variance of [nan, nan, nan].
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for name in paddle mindspore; do python3.11 -m venv "$folder/$name"; done
"$folder/paddle/bin/pip" install --quiet --disable-pip-version-check paddlepaddle==3.3.1 numpy==2.4.6
"$folder/mindspore/bin/pip" install --quiet --disable-pip-version-check mindspore==2.10.0 numpy==1.26.4
cd "$folder"
paddle/bin/python -W ignore - <<'EOF'
import numpy as np
import paddle

x = np.array([[5.0, -1.0, 0.0]], np.float32)
layer = paddle.nn.BatchNorm1D(3)
layer.weight.set_value(paddle.to_tensor([2.0, 2.0, 2.0]))
layer.bias.set_value(paddle.to_tensor([7.0, 7.0, 7.0]))
layer.train()
trained = layer(paddle.to_tensor(x))
trained.sum().backward()
print("Paddle: training", trained.numpy(), "gradient of gamma", layer.weight.grad.numpy())
assert np.array_equal(trained.numpy(), x)
assert np.array_equal(layer.weight.grad.numpy(), [0, 0, 0])
assert np.array_equal(layer._mean.numpy(), [0, 0, 0]) and np.array_equal(layer._variance.numpy(), [1, 1, 1])
layer.eval()
inferred = layer(paddle.to_tensor(x)).numpy()
print("Paddle: inference", inferred)
assert np.allclose(inferred, 2 * x + 7, atol=1e-3)
EOF
mindspore/bin/python -W ignore - <<'EOF' 2>&1 | grep -v WARNING
import mindspore
import numpy as np
from mindspore import Tensor, nn

mindspore.set_device("CPU")
layer = nn.BatchNorm1d(3, gamma_init=Tensor(np.full(3, 2, np.float32)), beta_init=Tensor(np.full(3, 7, np.float32)))
x = Tensor(np.array([[5.0, -1.0, 0.0]], np.float32))
layer.set_train(True)
trained = layer(x).asnumpy()
variance = layer.moving_variance.asnumpy()
layer.set_train(False)
inferred = layer(x).asnumpy()
print("MindSpore: training", trained, "moving variance", variance, "inference", inferred)
assert np.array_equal(trained, [[7, 7, 7]])
assert np.isnan(variance).all() and np.isnan(inferred).all()
EOF
