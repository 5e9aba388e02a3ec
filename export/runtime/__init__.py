"""ONNX Runtime: sessions, the memory they may take, where they compute, and how long."""
