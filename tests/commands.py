"""The command line as a process of its own; `run` in conftest.py has it in this one, for speed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TOOL = Path(sys.executable).with_name("keras-bn")


def tool(*words, program=(TOOL,), **environment):
    """Run the command line in another process; give its status, stdout and stderr."""
    command = [str(word) for word in (*program, *words)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "TF_CPP_MIN_LOG_LEVEL": "", **environment},
    )


def assert_one_line(done, *expected):
    """Assert that a command refused its input with one line, on stderr, that has these texts."""
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for text in expected:
        assert text in done.stderr


def in_a_process(*command):
    """Run a command; return its status, its outputs and the most memory that it had, in bytes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode())
    return subprocess.CompletedProcess(command, process.returncode, *texts), 1024 * used.ru_maxrss
