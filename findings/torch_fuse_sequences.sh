#!/usr/bin/env bash
# PyTorch 2.13.0, torch.nn.utils.fusion.fuse_linear_bn_eval and torch.fx.experimental.optimization.fuse, on a Linear and
# a BatchNorm1d over sequences (N, L, F).
#
# A good guess: the fused layer computes what the two do, or fusing is refused.
# What happens: for three axes BatchNorm1d takes axis 1 for the channels, Linear the last. The fusion compares the two
# sizes only: where sequences are as long as they are wide (L = F) it scales the features by the statistics of the
# positions, without a word. Where L differs from F it raises, so it shows in no other test.
# Seen: Linear the identity, variances [1, 100], x all ones (1, 2, 2): [[1, 1], [0.1, 0.1]] before,
# [[1, 0.1], [1, 0.1]] after.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import torch
from torch.fx.experimental.optimization import fuse
from torch.nn.utils.fusion import fuse_linear_bn_eval

network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2, eps=0.0)).eval()
network[0].weight.data = torch.eye(2)
network[0].bias.data.zero_()
network[1].running_var.copy_(torch.tensor([1.0, 100.0]))
x = torch.ones(1, 2, 2)
with torch.no_grad():
    before, fused, fx = network(x), fuse_linear_bn_eval(*network)(x), fuse(network)(x)
    rows = network(x[0]), fuse_linear_bn_eval(*network)(x[0])
print("before", before.tolist(), "fused", fused.tolist(), "by fx", fx.tolist())
torch.testing.assert_close(before, torch.tensor([[[1.0, 1.0], [0.1, 0.1]]]))
for found in (fused, fx):
    torch.testing.assert_close(found, torch.tensor([[[1.0, 0.1], [1.0, 0.1]]]))
torch.testing.assert_close(*rows)
network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(3)).eval()
network(torch.ones(1, 3, 2))
try:
    fuse_linear_bn_eval(*network)
except AssertionError as error:
    print("L = 3, F = 2:", error)
else:
    raise RuntimeError("L = 3, F = 2 is fused now")
EOF
