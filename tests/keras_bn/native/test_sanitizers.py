"""The native kernel under the compiler's sanitisers, in a program of its own without TensorFlow."""

import shutil
import subprocess
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("driver.cc")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++"),
]


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_kernel_passes_the_sanitizers(tmp_path, sanitizers):
    program = tmp_path / "driver"
    flags = ["-std=c++17", "-O1", "-g", "-pthread", "-Wall", "-Wextra", "-Werror"]
    checks = [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all"]
    subprocess.run([shutil.which("g++"), *flags, *checks, DRIVER, "-o", program], check=True)
    words = [program, *(["no fork"] if sanitizers == "thread" else [])]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all passes agree\n"
