#!/usr/bin/env bash
# MXNet 1.9.1 with its own ONNX export, gluon.nn.BatchNorm(scale=False).
#
# A good guess: a file holds what the network computes.
# What happens: scale=False (fix_gamma, the default of the symbol) computes with gamma = 1 whatever the stored parameter
# is, which is why parameter files may hold anything there. The export writes the stored one as the scale of ONNX's
# BatchNormalization, so that channels are multiplied by it. With scale=True the file is right.
# Seen: outputs off by exactly the stored gamma, 2 to 3 times as large before beta; 1e-6 with scale=True.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check mxnet==1.9.1 numpy==1.23.5 onnx==1.14.1 protobuf==3.20.3
cd "$folder"
bin/python -W ignore - <<'EOF'
import mxnet
import numpy as np
from onnx.reference import ReferenceEvaluator
from mxnet import gluon, nd
from mxnet import onnx as exporter

generator = np.random.default_rng(0)
x = generator.normal(size=(1, 4, 3, 3)).astype(np.float32)
for scale in (True, False):
    net = gluon.nn.HybridSequential()
    net.add(gluon.nn.BatchNorm(in_channels=4, scale=scale))
    net.initialize()
    parameters = net[0].collect_params().values()
    for parameter in parameters:
        parameter.set_data(nd.array(generator.uniform(2, 3, 4)))
    gamma, beta = net[0].gamma.data().asnumpy(), net[0].beta.data().asnumpy()
    net.hybridize()
    own = net(nd.array(x)).asnumpy()
    net.export("net")
    exporter.export_model("net-symbol.json", "net-0000.params", [x.shape], np.float32, "net.onnx")
    (found,) = ReferenceEvaluator("net.onnx").run(None, {"data": x})
    beta, gamma = beta[:, None, None], gamma[:, None, None]
    ratio = ((found - beta) / (own - beta)).mean((0, 2, 3))
    print("scale", scale, "largest difference", abs(found - own).max(), "ratio by channel", ratio, "gamma", gamma.ravel())
    assert np.allclose(ratio, 1 if scale else gamma.ravel(), rtol=1e-3)
EOF
