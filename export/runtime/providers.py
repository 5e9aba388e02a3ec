"""ONNX Runtime's execution providers: where it computes. Imports no TensorFlow."""

from collections.abc import Sequence

import onnxruntime

from ..errors import ExportError

__all__ = ["installed_providers", "require_providers"]


def installed_providers() -> list[str]:
    """Return the names of the execution providers of the installed ONNX Runtime."""
    return list(onnxruntime.get_available_providers())


def require_providers(providers: Sequence[str]) -> None:
    """Raise `ExportError` unless ONNX Runtime has all of these execution providers here."""
    installed = installed_providers()
    listed = isinstance(providers, Sequence) and not isinstance(providers, str)
    if not listed or not providers or any(name not in installed for name in providers):
        raise ExportError(
            "check: `providers` must be a list of execution providers of the installed ONNX "
            f"Runtime, {installed}. Received: {providers!r}."
        )
