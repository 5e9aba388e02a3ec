"""The memory that ONNX Runtime may take for tensors, in this process.

A few bytes of a file can ask for any tensor: ConstantOfShape, Expand, Tile, Range, or a Concat of a
tensor with itself forty times over. What they make is only known when they run, so that no look at
the file can bound it; the arena that all sessions share does. A tensor too many is an error of the
session, not the end of the process. How long a Loop runs is not bounded.
"""

import contextlib
import functools
import os
from pathlib import Path

import onnxruntime

__all__ = ["give_memory_back", "share_bounded_arena"]

USUAL = 8 * 2**30
SHARE = 2  # that part of the machine's memory
# Where Linux keeps a container's limit, in either version of its control groups.
LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
SAME_AS_REQUESTED = 1  # how the arena grows: by what is asked for, not by doubling


def share_bounded_arena(options: onnxruntime.SessionOptions) -> None:
    """Let a session take its tensors from the bounded arena.

    Args:
        options: What the session will be made with; changed.
    """
    _register()
    options.add_session_config_entry("session.use_env_allocators", "1")


def give_memory_back() -> onnxruntime.RunOptions:
    """Return options for a run after which the arena keeps no memory that is not in use."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _memory() -> int:
    """Return the bytes of the machine, or of the container; `USUAL` where the system tells none."""
    try:
        found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, OSError, ValueError):  # such as on Windows
        found = [USUAL]
    for limit in LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or the word "max" in it
            found.append(int(limit.read_text()))
    return min(found)


@functools.cache
def _register() -> None:
    """Make the arena; ONNX Runtime has one for the life of the process."""
    largest = _memory() // SHARE
    memory = onnxruntime.OrtMemoryInfo(
        "Cpu",
        onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR,
        0,
        onnxruntime.OrtMemType.DEFAULT,
    )
    arena = onnxruntime.OrtArenaCfg(largest, SAME_AS_REQUESTED, -1, -1)
    onnxruntime.create_and_register_allocator(memory, arena)
