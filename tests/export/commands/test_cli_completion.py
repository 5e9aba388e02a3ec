"""Shell completion, asked for as each shell asks: by environment variables, in a new process."""

import shutil
import subprocess

import pytest

from tests.commands import TOOL, tool

BASH = shutil.which("bash")


def bash(line):
    words = line.split(" ")
    return {
        "_KERAS_BN_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }


def zsh(line):
    return {"_KERAS_BN_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": line}


def fish(line):
    return {
        "_KERAS_BN_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }


@pytest.fixture
def complete(tmp_path):
    """Return a function that completes a line where TensorFlow and Keras cannot be imported."""
    for package in ("tensorflow", "keras"):
        (tmp_path / f"{package}.py").write_text("raise SystemExit(77)")

    def completed(shell, line):
        done = tool(PYTHONPATH=str(tmp_path), **shell(line))
        assert done.stderr == ""
        return done.stdout

    return completed


@pytest.mark.parametrize("shell", [bash, zsh, fish])
def test_commands_and_options_are_completed(complete, shell):
    commands = complete(shell, "keras-bn ch")
    assert "check" in commands
    assert "export" not in commands
    options = complete(shell, "keras-bn check --pr")
    assert all(option in options for option in ("--preprocess", "--precision", "--provider"))
    assert "--seed" not in options


def test_bash_gets_one_word_a_line(complete):
    assert complete(bash, "keras-bn ch").split("\n") == ["check", ""]


def test_precisions_are_completed(complete):
    assert complete(bash, "keras-bn export --precision fl").split() == ["float32", "float16"]


def test_providers_are_those_that_are_installed(complete):
    assert "CPUExecutionProvider" in complete(bash, "keras-bn check --provider CPU").split()
    assert "CPUExecutionProvider" in complete(bash, "keras-bn bench --provider ").split()


@pytest.mark.parametrize(
    "line", ["keras-bn check mod", "keras-bn fold ", "keras-bn check --html p"]
)
def test_files_are_left_to_the_shell(complete, line):
    assert complete(bash, line).strip() == ""
    assert complete(zsh, line).strip() in ("", "_files")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_of_every_shell_is_shown(shell):
    script = tool(_KERAS_BN_COMPLETE=f"source_{shell}")
    assert (script.returncode, script.stderr) == (0, "")
    assert "keras-bn" in script.stdout
    assert f"complete_{shell}" in script.stdout


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_bash_completes_commands_and_files(tmp_path):
    (tmp_path / "model.keras").write_text("")
    script = f"""
        PATH={TOOL.parent}:$PATH; cd {tmp_path}
        eval "$(_KERAS_BN_COMPLETE=source_bash keras-bn)"
        complete -p keras-bn
        COMP_WORDS=(keras-bn ch); COMP_CWORD=1; _keras_bn_completion keras-bn
        echo "${{COMPREPLY[@]}}"
        COMP_WORDS=(keras-bn check mod); COMP_CWORD=2; _keras_bn_completion keras-bn
        echo "${{#COMPREPLY[@]}}"
    """
    done = subprocess.run(
        [BASH, "--norc", "-c", script], capture_output=True, text=True, check=False
    )
    function, command, others = done.stdout.splitlines()
    assert "-o default" in function  # files, where the function has no answer
    assert (command, others) == ("check", "0")
    assert done.stderr == ""


@pytest.mark.skipif(BASH is None, reason="there is no bash")
def test_completion_is_installed_for_the_shell_that_asks(tmp_path):
    (tmp_path / ".bashrc").write_text("# mine\n")
    script = f"HOME={tmp_path} {TOOL} --install-completion; echo $?"
    done = subprocess.run([BASH, "--norc", "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "0", done.stdout + done.stderr
    (installed,) = (tmp_path / ".bash_completions").iterdir()
    assert (tmp_path / ".bashrc").read_text().startswith("# mine\n")
    assert str(installed) in (tmp_path / ".bashrc").read_text()
