#!/usr/bin/env bash
# PyTorch 2.13.0, BatchNorm1d in training mode, called, scripted, traced and exported.
#
# A good guess: a last batch of one sample raises "Expected more than 1 value per channel when training", however
# the layer is run; and tracing looks at a layer without changing it.
# What happens: the check is Python code in the functional layer. torch.jit.script keeps it; torch.jit.trace and
# torch.export run it once and leave it out, so that a batch of one sample divides the variance by m - 1 = 0: the
# output is beta, nothing is raised, and the running variance is NaN from then on, in every later inference. Tracing
# itself runs the layer five times, which moves the running statistics by 41 percent towards the example.
# Seen: running variance [nan, nan] after one sample, traced and exported; num_batches_tracked 5 after a trace.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import torch

sample = torch.tensor([[1.0, 2.0]])
example = torch.tensor([[1.0, 2.0], [3.0, 6.0], [5.0, 4.0], [7.0, 8.0]])


def layer() -> torch.nn.BatchNorm1d:
    return torch.nn.BatchNorm1d(2).train()


for name, checked in {"called": layer(), "scripted": torch.jit.script(layer())}.items():
    try:
        checked(sample)
    except Exception as error:
        assert "Expected more than 1 value per channel" in str(error), error
    else:
        raise AssertionError(f"{name}: no error")
    assert torch.isfinite(checked.running_var).all()

traced = torch.jit.trace(layer(), example)
print("after the trace:", traced.num_batches_tracked.item(), "batches, mean", traced.running_mean.tolist())
assert traced.num_batches_tracked.item() == 5
torch.testing.assert_close(traced.running_mean, (1 - 0.9**5) * example.mean(0))

batch = torch.export.Dim("batch", min=1)
exported = torch.export.export(layer(), (example,), dynamic_shapes=({0: batch},)).module()
for name, module in {"traced": traced, "exported": exported}.items():
    y = module(sample)
    variance = dict(module.named_buffers())["running_var"]
    print(name, "output", y.tolist(), "running variance", variance.tolist())
    assert torch.isfinite(y).all() and torch.isnan(variance).all()
EOF
