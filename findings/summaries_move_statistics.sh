#!/usr/bin/env bash
# torchsummary 1.5.1, fvcore 0.1.5.post20221221, torchprofile 0.1.0 and ptflops 0.7.5 with PyTorch 2.13.0, on a model in
# training mode.
#
# A good guess: who prints a table of layers or counts multiplications leaves the model as it was; Keras's summary() runs
# nothing, and torchinfo 1.8.0 and thop 0.1.1 switch to inference and back.
# What happens: torchsummary, fvcore and torchprofile run the model as it is, so that a new or a loaded model in training
# mode has its stored statistics moved, by noise from torchsummary, by the example from the others, once a call. ptflops
# runs it in inference and leaves it there: training after that never moves a statistic.
# Seen: stored mean 5, an example of zeros: 4.5 after fvcore and after torchprofile; 4.55 after torchsummary, whose noise
# is uniform in [0, 1); after ptflops the mean is 5 and model.training is False.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 fvcore==0.1.5.post20221221 torchinfo==1.8.0 \
    numpy==2.4.6
"$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps torchsummary==1.5.1 torchprofile==0.1.0 \
    ptflops==0.7.5 thop==0.1.1.post2209072238
"$folder/bin/python" -W ignore - <<'EOF'
import contextlib
import io
import logging
from collections.abc import Callable

import fvcore.nn
import ptflops
import thop
import torch
import torchinfo
import torchprofile
import torchsummary

logging.disable(logging.WARNING)
SHAPE = (1, 64, 64)
example = torch.zeros(2, *SHAPE)


def mean_and_mode(look: Callable[[torch.nn.Module], object]) -> tuple[float, bool]:
    torch.manual_seed(0)
    batch_norm = torch.nn.BatchNorm2d(1)
    batch_norm.running_mean.fill_(5)
    model = torch.nn.Sequential(batch_norm).train()
    with contextlib.redirect_stdout(io.StringIO()):
        look(model)
    return round(batch_norm.running_mean.item(), 2), model.training


for look, wanted in (
    (lambda model: torchinfo.summary(model, (2, *SHAPE), verbose=0), (5.0, True)),
    (lambda model: thop.profile(model, (example,), verbose=False), (5.0, True)),
    (lambda model: torchsummary.summary(model, SHAPE, device="cpu"), (4.55, True)),
    (lambda model: fvcore.nn.FlopCountAnalysis(model, example).total(), (4.5, True)),
    (lambda model: torchprofile.profile_macs(model, example), (4.5, True)),
    (lambda model: ptflops.get_model_complexity_info(model, SHAPE, print_per_layer_stat=False), (5.0, False)),
):
    seen = mean_and_mode(look)
    print(look.__code__.co_names[0], "stored mean", seen[0], "in training mode", seen[1])
    assert seen == wanted, seen
EOF
