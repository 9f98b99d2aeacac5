"""Finding and ending all that a process has started, also what has moved to a session of its own.

Run as a script it is the guardian of a stack: it waits until its standard input closes, which happens when the stack's own
process ends in whatever way (`kill -9` too), and then ends all that carries the stack's mark. It imports little, so that it
starts at once.
"""

from __future__ import annotations

import os
import signal
import sys

MARK_OF_STACK = "ASSAY_STACK_MARK"
"""Environment variable, inherited by all descendants, that tells whose they are: the same for a whole stack."""
MARK_OF_PROCESS = "ASSAY_STACK_PROCESS_MARK"
"""The same for one start of one process and its descendants."""


def marked(variable: str, mark: str) -> list[int]:
    """Ids of the processes whose environment has `variable` set to `mark`, but not this one. Needs Linux's /proc."""
    wanted = f"{variable}={mark}".encode()
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                environment = file.read().split(b"\0")
        except OSError:  # ended meanwhile, or somebody else's
            continue
        if wanted in environment:
            found.append(int(name))
    return found


def end_marked(variable: str, mark: str) -> int:
    """Kills those processes, until there are none; the number of those killed."""
    ended: set[int] = set()
    while True:
        alive = [number for number in marked(variable, mark) if number not in ended]
        if not alive:
            return len(ended)
        for number in alive:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
            finally:
                ended.add(number)


def guard(mark: str) -> None:
    """Waits until standard input closes, then ends all that carries the stack's mark."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 1):
        pass
    end_marked(MARK_OF_STACK, mark)


if __name__ == "__main__":
    guard(sys.argv[1])
