"""The options of a check, of whatever type -> nothing, or one `ExportError` that says what to give.

What depends on the model, such as the names in `ranges`, is checked where it is used.
"""

import os
from collections.abc import Mapping
from typing import Any

from ..errors import ExportError

__all__ = ["require_options"]


def require_options(*, onnx_path: Any, inputs: Any, ranges: Any, explain: Any) -> None:
    """Raise `ExportError` unless these options of `check_parity` are of the right kind."""
    for name, value, rule, holds in (
        ("onnx_path", onnx_path, "be a path", isinstance(onnx_path, str | os.PathLike)),
        (
            "ranges",
            ranges,
            "be a dict of two numbers by input name",
            ranges is None or isinstance(ranges, Mapping),
        ),
        (
            "explain",
            explain,
            "be True, False or None",
            explain is None or isinstance(explain, bool),
        ),
    ):
        if not holds:
            raise ExportError(f"check: `{name}` must {rule}. Received: {name}={value!r}.")
    if inputs is not None and ranges:
        raise ExportError(
            "check: `ranges` must be left out where samples are given. "
            f"Received: ranges={dict(ranges)!r} and `inputs`."
        )
