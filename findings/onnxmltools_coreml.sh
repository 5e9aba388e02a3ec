#!/usr/bin/env bash
# onnxmltools 1.16.0, convert_coreml, of which its README has an example, with coremltools 9.0.
#
# A good guess: a conversion that the package has as a public function, and documents, works on the smallest model.
# What happens: it raises ImportError before it looks at the model. Its parser asks a module of the package itself for
# find_type_conversion, which no file of the package defines; so no version of coremltools helps. Importing onnxmltools
# shows nothing, since the converter is imported at the first call. Core ML models thus have no way into ONNX by it.
# Seen: cannot import name 'find_type_conversion' from 'onnxmltools.convert.common.data_types', for a model of one Relu.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.11 -m venv "$folder"
"$folder/bin/pip" install --quiet --disable-pip-version-check onnxmltools==1.16.0 coremltools==9.0 onnx==1.23.2 \
    protobuf==7.36.2 scikit-learn==1.5.1 numpy==2.4.6
cd "$folder"
bin/python -W ignore - <<'EOF'
import pathlib
import re

import onnxmltools
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder

builder = NeuralNetworkBuilder([("x", datatypes.Array(3))], [("y", datatypes.Array(3))])
builder.add_activation("relu", "RELU", "x", "y")
try:
    onnxmltools.convert_coreml(builder.spec, "relu")
except ImportError as error:
    print(str(error).split(" (")[0])
    assert "cannot import name 'find_type_conversion' from 'onnxmltools.convert.common.data_types'" in str(error)
else:
    raise AssertionError("it converts")
files = list(pathlib.Path(onnxmltools.__file__).parent.rglob("*.py"))
defining = [file.name for file in files if re.search(r"def find_type_conversion|find_type_conversion *=", file.read_text())]
print("files that define it:", defining, "of", len(files))
assert len(files) > 50 and not defining
EOF
