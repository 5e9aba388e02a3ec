"""Names that are imported on first use, and what is said of an import that fails.

Python takes an AttributeError of a module's `__getattr__` for a name that the module does not have:
it drops the error and says "cannot import name". One that comes from an import deeper down, as of
an installed package that is broken or of another age, is therefore raised again as an ImportError.
"""

import importlib
import importlib.util

__all__ = ["attribute", "why_not_found"]


def attribute(package: str, module: str, name: str) -> object:
    """Import a module of a package and return one of its names.

    Args:
        package: Full name of the package, e.g. "keras_bn".
        module: Name of the module in it, e.g. "layer".
        name: The name, which the package offers as its own.

    Returns:
        What the module has by that name.

    Raises:
        ImportError: If the import ended in an AttributeError, which is the cause.
    """
    try:
        return getattr(importlib.import_module(f"{package}.{module}"), name)
    except AttributeError as e:
        raise ImportError(
            f"{package}.{name}: its import failed, by an installed package that is broken, or too "
            f"old or new. Received: {type(e).__name__}: {e}. `python -m pip check` names those "
            "that do not fit together."
        ) from e


def why_not_found(error: ModuleNotFoundError, extra: str) -> str:
    """Return what is missing and how to install it, to stand behind "... needs ".

    Args:
        error: What the import raised.
        extra: The extra of this distribution that has the package.
    """
    module = str(error.name)
    package = module.split(".")[0]
    if "." in module and importlib.util.find_spec(package) is not None:
        return (
            f"the module {module!r}, which the installed package {package!r} does not have. "
            f"Upgrade it: pip install --upgrade {package.replace('_', '-')} 'keras-bn[{extra}]'."
        )
    return (
        f"the package {package!r}, which is not installed. "
        f"Install the extra: pip install 'keras-bn[{extra}]'."
    )
