"""Entry point of `keras-bn` and `python -m keras_bn.export`: the commands that there are."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from keras_bn.importing import importing_commands

if TYPE_CHECKING:
    import typer

__all__ = ["main", "program"]


def program() -> "typer.Typer":
    """Return the command line, with every command."""
    from .commands import bench, check, demo, export, fold, inspect, recalibrate
    from .commands.cli import program_of, with_version

    commands = program_of(
        (
            (demo.demo, demo.EXAMPLES),
            (export.export, export.EXAMPLES),
            (check.check, check.EXAMPLES),
            (fold.fold, fold.EXAMPLES),
            (inspect.inspect, inspect.EXAMPLES),
            (recalibrate.recalibrate, recalibrate.EXAMPLES),
            (bench.bench, bench.EXAMPLES),
        ),
        help="Batch normalisation for Keras: export to ONNX with every batch norm folded, and "
        "proof; inspect and renew the statistics of trained models.",
        epilog="Exit status: 0 agreed, 1 it differs, 2 bad input, 3 an error of this program.\n"
        "Start with: keras-bn demo",
        no_args_is_help=True,
    )
    commands.callback()(with_version)
    return commands


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its status, which `commands/cli.py` lists.

    Args:
        arguments: The words after the program's name; None takes those of the process.
    """
    with importing_commands(arguments):
        from .commands.cli import run

        commands = program()
    run(commands, "keras-bn", arguments)


if __name__ == "__main__":
    main()
