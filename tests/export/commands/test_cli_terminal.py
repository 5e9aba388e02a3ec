"""What a person sees: progress on a terminal, which leaves no trace, and colour."""

import os
import pty
import signal
import subprocess
import time

import pytest

from tests.commands import TOOL, tool

HIDE, SHOW, ERASE = b"\x1b[?25l", b"\x1b[?25h", b"\x1b[2K"


def in_terminal(*words, stdout=subprocess.PIPE, interrupt=None, **environment):
    """Run the tool with stderr, or stdout too, on a terminal; return status, stdout and that."""
    here, there = pty.openpty()
    process = subprocess.Popen(
        [TOOL, *map(str, words)],
        stdout=there if stdout is None else stdout,
        stderr=there,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )
    os.close(there)
    seen = b""
    while True:
        try:
            part = os.read(here, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
        if interrupt is not None and HIDE in seen:
            time.sleep(1.0)
            process.send_signal(interrupt)
            interrupt = None
    os.close(here)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output, seen


def test_progress_is_shown_and_removed(files):
    words = ("check", files / "model.keras", files / "model.onnx")
    status, output, seen = in_terminal(*words)
    assert status == 0
    assert output.startswith(b"agrees: ")
    assert b"\x1b" not in output
    for text in (b"starting TensorFlow", b"loading ", b"comparing "):
        assert text in seen
    assert seen.rindex(SHOW) > seen.rindex(HIDE)
    assert seen.endswith(b"\x1b[2K")  # the line is empty again
    assert (
        b"\n" not in seen.replace(b"\r\n", b"", seen.count(b"\r\n") - 0) or seen.count(b"\n") <= 1
    )


@pytest.mark.parametrize("word", ["--json", "--quiet"])
def test_progress_is_not_shown_to_who_wants_silence(files, word):
    status, _, seen = in_terminal("fold", files / "model.onnx", "--dry-run", word)
    assert (status, seen) == (0, b"")


def test_nothing_of_it_is_in_a_pipe(files):
    done = tool("fold", files / "model.onnx", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["killed", "ctrl-c"]
)
def test_cursor_comes_back_when_it_is_stopped(files, number, status):
    words = ("check", files / "model.keras", files / "model.onnx")
    found, output, seen = in_terminal(*words, interrupt=number)
    assert (found, output) == (status, b"")
    assert seen.rindex(SHOW) > seen.rindex(HIDE)


def test_colour_is_for_a_terminal_without_no_color(files):
    from tests.export.commands.test_cli import change_a_bias

    change_a_bias(files / "model.onnx")
    words = ("check", files / "model.keras", files / "model.onnx", "--no-explain")
    status, _, seen = in_terminal(*words, stdout=None)
    assert status == 1
    assert b"\x1b[1;31mDIFFERS: " in seen
    status, _, seen = in_terminal(*words, stdout=None, NO_COLOR="1")
    assert status == 1
    assert b"DIFFERS: " in seen
    assert b"31m" not in seen.partition(b"DIFFERS")[2]
