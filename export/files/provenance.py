"""Where a report comes from: the files that were read, and the versions that read them."""

import dataclasses
import hashlib
import importlib
import platform
from collections.abc import Sequence
from pathlib import Path

__all__ = ["OF_ONNX", "SourceFile", "versions"]

PACKAGES = ("keras_bn", "keras", "tensorflow", "numpy", "onnx", "onnxruntime")
OF_ONNX = ("keras_bn", "numpy", "onnx", "onnxruntime")  # where no Keras model plays a part


@dataclasses.dataclass(frozen=True)
class SourceFile:
    """A file that was read.

    Attributes:
        path: As it was given.
        bytes: Its size.
        sha256: Digest of its content.
    """

    path: str
    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "SourceFile":
        """Read a file's size and digest."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(str(path), path.stat().st_size, digest)

    @property
    def name(self) -> str:
        """The path's last part."""
        return Path(self.path).name


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Return the versions of what a report is made with, by name; imports it.

    The imported modules tell theirs: the distribution that brought them may be named otherwise, as
    tf-nightly, tensorflow-cpu and onnxruntime-gpu are.
    """
    modules = {name.replace("_", "-"): importlib.import_module(name) for name in packages}
    told = {name: str(module.__version__) for name, module in modules.items()}
    return {"python": platform.python_version(), **told}
