"""Entry point of `keras-bn` and `python -m keras_bn.export`."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, *, only_check: bool = False) -> None:
    """Run the command line and exit with its status, which `commands/cli.py` lists.

    Args:
        arguments: The words after the program's name; None takes those of the process.
        only_check: Whether the program is `python -m keras_bn.export.parity`.
    """
    try:
        from keras_bn.export.commands.cli import run
    except KeyboardInterrupt:  # once it is imported, it sees to this itself
        sys.exit(130)
    except ModuleNotFoundError as e:
        print(
            f"keras-bn: the command line needs the package {e.name!r}, which is not installed. "
            "Install the extra: pip install 'keras-bn[export]'.",
            file=sys.stderr,
        )
        sys.exit(2)
    run(arguments, only_check=only_check)


if __name__ == "__main__":
    main()
