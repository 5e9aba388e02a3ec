"""Builds the kernel of `keras_bn/native/` where there is a C++ compiler; nothing needs it.

It is no extension module of Python but a library that TensorFlow loads: one file serves every
version of Python, so it has a plain name, and the wheel is tagged for the platform alone.
"""

import os
import platform
import re
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NATIVE = "keras_bn/native"
SUPPORTED = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")

kernel = Extension(
    "keras_bn.native._kernel",
    [f"{NATIVE}/operators.cc"],
    depends=[f"{NATIVE}/{name}" for name in ("kernel.h", "loops.inc", "pool.h")],
    extra_compile_args=[
        *("-std=c++17", "-O3", "-g0", "-fno-math-errno", "-fno-trapping-math"),
        *("-fvisibility=hidden", "-pthread"),
    ],
    extra_link_args=["-pthread", "-ldl"],
    language="c++",
    optional=True,  # a failure is a line of the log: TensorFlow's own kernel does without
)


class BuildLibrary(build_ext):
    """Names the library without the version of Python."""

    def get_ext_filename(self, fullname: str) -> str:
        """Return the path of an extension below the folder of the build."""
        return os.path.join(*fullname.split(".")) + ".so"


class PlatformWheel(bdist_wheel):
    """Tags the wheel for the platform, and for any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tags of Python, its ABI and the platform."""
        return "py3", "none", super().get_tag()[2]


def described() -> str:
    """Return the README without links to files of this repository, which an index cannot follow."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    return re.sub(r"\[([^]]+)\]\((?!https?:)[^)]+\)", r"\1", text)


setup(
    long_description=described(),
    long_description_content_type="text/markdown",
    ext_modules=[kernel] if SUPPORTED else [],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": PlatformWheel},
)
