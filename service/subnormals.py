"""Takes numbers too small to be normal for zero, as the processor does faster.

What a mask hides leaves the exponential of a softmax as one of those numbers (below 1e-38). Intel's
processors stop at each of them for some hundred cycles: of the time that self-attention takes over
110 clicks, two thirds. As zeros they change no weight by more than 1e-38.
"""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

FLUSH = 0x8040  # of the register MXCSR: results are flushed to zero, and inputs read as zero


class _Modes(ctypes.Structure):
    """`femode_t` of glibc on x86-64 (fenv.h)."""

    _fields_ = (
        ("control_word", ctypes.c_ushort),
        ("reserved", ctypes.c_ushort),
        ("mxcsr", ctypes.c_uint),
    )


@contextmanager
def flushed_subnormals() -> Iterator[None]:
    """In this thread, and in those that it starts meanwhile; where it cannot be had, nothing.

    ONNX Runtime ends it in the thread that opens the first session of a process. ARM's processors
    take no longer for such numbers.
    """
    libm = _libm()
    if libm is None:
        yield
        return
    before, modes = _Modes(), _Modes()
    libm.fegetmode(ctypes.byref(before))
    libm.fegetmode(ctypes.byref(modes))
    modes.mxcsr |= FLUSH
    libm.fesetmode(ctypes.byref(modes))
    try:
        yield
    finally:
        libm.fesetmode(ctypes.byref(before))


@cache
def _libm() -> ctypes.CDLL | None:
    if platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc":
        return None
    libm = ctypes.CDLL("libm.so.6")
    return libm if hasattr(libm, "fesetmode") else None  # from glibc 2.25 on
