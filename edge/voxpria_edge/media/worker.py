"""The process in which captures are read: numpy and the codecs are loaded there alone."""

import ctypes
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from voxpria_edge.media.job import CaptureJob, MediaResult

_PR_SET_PDEATHSIG = 1


def new_pool() -> ProcessPoolExecutor:
    """Return a pool of one worker, which knows what it has read of which capture. It starts with its first work."""
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=_die_with, initargs=(os.getpid(),))


def warm() -> None:
    """Load what the work takes, so that a call that ends does not wait for it."""
    from voxpria_edge.media import process  # noqa: F401, PLC0415


def advance(job: CaptureJob) -> None:
    """Do what `process.advance` does."""
    from voxpria_edge.media import process  # noqa: PLC0415

    process.advance(job)


def process(job: CaptureJob) -> MediaResult:
    """Do what `process.process` does."""
    from voxpria_edge.media import process  # noqa: PLC0415

    return process.process(job)


def _die_with(parent: int) -> None:
    """Have the kernel end this process with the agent, however that dies (prctl(2)); a pool's worker would wait on."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
