"""Entry point of `keras-bn` and `python -m keras_bn.export`."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0 agreed, 1 parity failed, 2 bad input, 3 internal error.

    Args:
        arguments: The words after the program's name; None takes those of the process.
    """
    try:
        from .cli import run
    except ModuleNotFoundError as e:
        print(
            f"keras-bn: the command line needs the package {e.name!r}, which is not installed. "
            "Install the extra: pip install 'keras-bn[export]'.",
            file=sys.stderr,
        )
        sys.exit(2)
    run(arguments)


if __name__ == "__main__":
    main()
