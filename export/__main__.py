"""Entry point of `keras-bn` and `python -m keras_bn.export`."""

import sys
from collections.abc import Sequence

from keras_bn.importing import why_not_found

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
    run(arguments, only_check=only_check)


if __name__ == "__main__":
    main()
