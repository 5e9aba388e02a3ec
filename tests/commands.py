"""The command line as a process of its own; `run` in conftest.py has it in this one, for speed."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

TOOL = Path(sys.executable).with_name("keras-bn")

MEASURE = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
sys.exit(status)
"""


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
    """Run a command; return what it did and the most memory that it had, in bytes.

    Linux counts towards a process what its parent had when it started it, so a small process,
    not the one of the tests, starts the command.
    """
    with tempfile.NamedTemporaryFile("r") as memory:
        words = [sys.executable, "-S", "-c", MEASURE, memory.name, *command]
        done = tool(program=words)
        return done, 1024 * int(memory.read())
