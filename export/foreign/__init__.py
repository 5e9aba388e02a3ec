"""ONNX models that others made: opened safely, folded, and otherwise given back as they came."""
