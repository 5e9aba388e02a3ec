#!/usr/bin/env bash
# MXNet 1.9.1 on a CPU, gluon.nn.BatchNorm.
#
# A good guess: as in PyTorch and Keras, a forward run in training mode moves the running statistics, so that they can
# be estimated anew, or adapted to another domain, by running data through and never a gradient.
# What happens: the forward run leaves them; the backward run moves them. Forward alone, however often, changes nothing
# and says nothing. (The variance that is stored is the biased one. After a batch of one value per channel it is
# -7.8e-13, below zero, with momentum 0.)
# Seen: mean [0, 0, 0] and variance [1, 1, 1] after ten forward runs, the batch's own after one backward run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5
cd "$folder"
bin/python -W ignore - <<'EOF'
import mxnet
import numpy as np
from mxnet import autograd, gluon, nd

data = np.random.default_rng(0).normal(2, 1, (8, 3, 4, 4))


def layer() -> gluon.nn.BatchNorm:
    found = gluon.nn.BatchNorm(in_channels=3, momentum=0.0)  # the new statistics alone
    found.initialize()
    return found


def statistics(of: gluon.nn.BatchNorm) -> tuple[np.ndarray, np.ndarray]:
    nd.waitall()
    return of.running_mean.data().asnumpy(), of.running_var.data().asnumpy()


norm = layer()
for _ in range(10):
    with autograd.record():  # training mode
        total = norm(nd.array(data)).sum()
mean, variance = statistics(norm)
print("forward: mean", mean, "variance", variance)
assert np.array_equal(mean, [0, 0, 0]) and np.array_equal(variance, [1, 1, 1])

total.backward()
mean, variance = statistics(norm)
print("backward: mean", mean, "variance", variance)
assert np.allclose(mean, data.mean((0, 2, 3)), rtol=1e-5)
assert np.allclose(variance, data.var((0, 2, 3)), rtol=1e-5)

norm = layer()
with autograd.record():
    total = norm(nd.array([[5.0, -1.0, 3.0]])).sum()
total.backward()
_, variance = statistics(norm)
print("one value per channel: variance", variance)
assert (variance < 0).all()
EOF
