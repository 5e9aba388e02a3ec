"""What a figure depends on: the CPU, the instructions that matter, oneDNN, the kernel."""

import os
import platform
from pathlib import Path

import keras_bn

FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile")


def machine() -> str:
    """Return the machine and the settings in one line."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    fields = dict(
        (part.strip() for part in line.split(":", 1)) for line in text.splitlines() if ":" in line
    )
    flags = [flag for flag in FLAGS if flag in fields.get("flags", "").split()]
    onednn = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "as TensorFlow chooses")
    return (
        f"{fields.get('model name', platform.machine())}, {os.cpu_count()} CPUs, "
        f"{' '.join(flags)}; TF_ENABLE_ONEDNN_OPTS: {onednn}; kernel {keras_bn.kernel()}"
    )
