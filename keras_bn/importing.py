"""Names that are imported on first use, and what is said of an import that fails.

Python takes an AttributeError of a module's `__getattr__` for a name that the module does not have:
it drops the error and says "cannot import name". One that comes from an import deeper down, as of
an installed package that is broken or of another age, is therefore raised again as an ImportError.
"""

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence

__all__ = ["attribute", "importing_commands", "why_not_found"]


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


@contextlib.contextmanager
def importing_commands(arguments: Sequence[str] | None = None) -> Iterator[None]:
    """End the process in one line to stderr if the command line cannot be imported in the block.

    Args:
        arguments: The words that it was called with; None takes those of the process.
    """
    try:
        yield
    except KeyboardInterrupt:  # once it is imported, it sees to this itself
        sys.exit(130)
    except ModuleNotFoundError as e:
        needed = why_not_found(e, "export")
        print(f"keras-bn: the command line needs {needed}", file=sys.stderr)
        sys.exit(2)
    except Exception as e:  # an installed package that is broken, or too old or new
        if "--debug" in (sys.argv if arguments is None else arguments):
            raise
        cause = " ".join(f"{type(e).__name__}: {e}".split())
        print(
            f"keras-bn: the command line could not be imported. Received: {cause}. "
            "The whole of it comes with --debug.",
            file=sys.stderr,
        )
        sys.exit(3)
