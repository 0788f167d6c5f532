"""Nothing is left behind, whoever is killed.

Two processes watch each other. The guard is the parent of the supervisor and a child subreaper (prctl(2)): when
the supervisor dies, even by kill -9, every process below it falls to the guard, which ends them all. When the guard
dies, the kernel sends the supervisor SIGTERM (PR_SET_PDEATHSIG), and it stops everything in order.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable

import psutil

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(body: Callable[[], int]) -> int:
    """Run `body` in a child process under guard; return its exit code once nothing it started is left."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    guard = os.getpid()
    child = os.fork()
    if child == 0:
        os.setsid()  # a Ctrl-C at the terminal reaches the guard alone, which passes it on once
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        die_with_parent(signal.SIGTERM, guard)
        os._exit(body())
    for number in ENDING_SIGNALS:
        signal.signal(number, lambda received, _frame: _pass_on(child, received))
    code = os.waitstatus_to_exitcode(_wait_for(child))
    for number in ENDING_SIGNALS:  # nothing is left to tell, and the interpreter's own end would take the default
        signal.signal(number, signal.SIG_IGN)
    end_descendants()
    return code if code >= 0 else 128 - code


def die_with_parent(number: int, parent: int) -> None:
    """Have the kernel send signal `number` to this process when its parent, pid `parent`, dies."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before we had asked
        os.kill(os.getpid(), number)


def end_descendants(seconds: float = 5) -> None:
    """Kill every process below this one and reap it; gives up after `seconds`."""
    deadline = time.monotonic() + seconds
    me = psutil.Process()
    while time.monotonic() < deadline and (left := me.children(recursive=True)):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _reap()
        time.sleep(0.01)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _wait_for(child: int) -> int:
    """Wait until `child` ends, collecting orphans that end meanwhile."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return status


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "prctl")
