#!/usr/bin/env bash
# onnxscript 0.7.2 (optimizer and rewriter, which torch.onnx.export runs by default) and Apache TVM 0.27.0.post1 (its
# ONNX importer), on a BatchNormalization with training_mode = 1, alone and behind a convolution.
#
# A good guess: with training_mode = 1 the operator normalises with the moments of the batch; who does not support
# that refuses it, or leaves it.
# What happens: both read the stored mean and variance all the same. onnxscript folds them into the convolution and drops
# the two other outputs, TVM computes the inference formula and returns the old statistics as the new ones.
# Seen: a batch of [1, 3], stored mean 0 and variance 1: [-1, 1] in ONNX Runtime 1.32.0, [1, 3] from the file that
# onnxscript wrote and from TVM; the running mean is 0.2 in ONNX Runtime and 0 in TVM.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check onnxscript==0.7.2 apache-tvm==0.27.0.post1 \
    onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import numpy as np
import onnx
import onnxruntime
import onnxscript.optimizer
import onnxscript.rewriter
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

x = np.float32([1, 3]).reshape(2, 1, 1, 1)
WEIGHTS = (
    "float[1, 1, 1, 1] W = {1}, float[1] scale = {1}, float[1] B = {0}, float[1] mean_in = {0}, float[1] variance_in = {1}"
)


def parse(outputs: str, nodes: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 15]> g (float[2, 1, 1, 1] x) => ({outputs}) <{WEIGHTS}> {{ {nodes} }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


batch_norm = "y, mean, variance = BatchNormalization <training_mode = 1, epsilon = 0.0>"
model = parse("float[2, 1, 1, 1] y, float[1] mean, float[1] variance", f"{batch_norm} (x, scale, B, mean_in, variance_in)")
y, mean, variance = run(model)
print("ONNX Runtime", y.ravel(), mean, variance)
np.testing.assert_allclose(y.ravel(), [-1, 1], rtol=1e-4)
np.testing.assert_allclose([mean[0], variance[0]], [0.2, 1], rtol=1e-6)

module = from_onnx(model, {"x": [2, 1, 1, 1]}, keep_params_in_input=False)
module = relax.transform.LegalizeOps()(relax.transform.DecomposeOpsForInference()(module))
machine = relax.VirtualMachine(tvm.compile(module, target="llvm"), tvm.cpu())
y, mean, variance = (array.numpy() for array in machine["main"](tvm.runtime.tensor(x)))
print("TVM", y.ravel(), mean, variance)
np.testing.assert_allclose(y.ravel(), [1, 3], rtol=1e-4)
np.testing.assert_allclose([mean[0], variance[0]], [0, 1], atol=1e-6)

model = parse("float[2, 1, 1, 1] y", f"h = Conv (x, W) {batch_norm} (h, scale, B, mean_in, variance_in)")
np.testing.assert_allclose(run(model)[0].ravel(), [-1, 1], rtol=1e-4)
for rewrite in (onnxscript.optimizer.optimize, onnxscript.rewriter.rewrite):
    rewritten = rewrite(onnx.ModelProto.FromString(model.SerializeToString()))
    print(rewrite.__module__, [node.op_type for node in rewritten.graph.node], run(rewritten)[0].ravel())
    assert [node.op_type for node in rewritten.graph.node] == ["Conv"]
    np.testing.assert_allclose(run(rewritten)[0].ravel(), [1, 3], rtol=1e-4)
EOF
