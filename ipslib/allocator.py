"""Freed memory kept by the process: on Linux, most of a large step's time goes to new pages."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # glibc's malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed for the next step, for the whole process.

    By default it takes large blocks from the system and gives them back at once, and every new
    block costs a page fault for each 4 KB. Peak memory stays as it is; what falls free comes
    back to the system at the end of the process.

    Returns:
        Whether the allocator took it: False where it is not glibc's.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _NEVER))
