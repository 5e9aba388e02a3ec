"""`python -m keras_bn.export.parity MODEL.keras MODEL.onnx` is `keras-bn check`."""

from typing import TYPE_CHECKING

from keras_bn.importing import importing_commands

if TYPE_CHECKING:
    import typer

__all__ = ["program"]

NAME = "python -m keras_bn.export.parity"


def program() -> "typer.Typer":
    """Return `keras-bn check` as a program of its own."""
    from ..commands.check import EXAMPLES, check
    from ..commands.cli import program_of

    examples = EXAMPLES.replace("keras-bn check", NAME)
    return program_of([(check, examples)], add_completion=False)


if __name__ == "__main__":
    with importing_commands():
        from ..commands.cli import run

        commands = program()
    run(commands, NAME)
