#!/usr/bin/env bash
# Lightning (pytorch-lightning 2.6.6) with PyTorch 2.13.0, BaseFinetuning.freeze(model, train_bn=False), by which a
# callback for fine-tuning freezes a backbone whole.
#
# A good guess: a frozen batch norm normalises with its stored statistics, as a Keras layer with trainable = False does;
# the documentation says of train_bn=True alone that it leaves the layers "in training mode".
# What happens: the layers stay in training mode. freeze sets track_running_stats = False, which keeps the statistics from
# moving, but while the model trains each image is still normalised with the moments of its batch. The layers behind are
# fitted to that, and inference feeds them something else.
# Seen: a batch of [1, 3], stored mean 0 and variance 1: [-1, 1] while training, [1, 3] in eval; the statistics stay.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check pytorch-lightning==2.6.6 torch==2.13.0 numpy==2.4.6
"$folder/bin/python" -W ignore - <<'EOF'
import numpy as np
import torch
from pytorch_lightning.callbacks import BaseFinetuning

batch_norm = torch.nn.BatchNorm2d(1)
model = torch.nn.Sequential(batch_norm).train()
x = torch.tensor([1.0, 3.0]).reshape(2, 1, 1, 1)
BaseFinetuning.freeze(model, train_bn=False)
frozen = not any(parameter.requires_grad for parameter in model.parameters())
training = model(x).ravel().numpy()
stored = [batch_norm.running_mean.item(), batch_norm.running_var.item()]
inference = model.eval()(x).ravel().numpy()
print("frozen", frozen, "output in training", training, "in inference", inference, "stored mean and variance", stored)
assert frozen and stored == [0, 1]
np.testing.assert_allclose(training, [-1, 1], rtol=1e-4)
np.testing.assert_allclose(inference, [1, 3], rtol=1e-4)
EOF
