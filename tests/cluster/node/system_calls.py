"""What Python's standard library has no function for: namespaces, mounts, privileges. Raises OSError where the kernel refuses."""

from __future__ import annotations

import ctypes
import os

NEW_MOUNTS, NEW_HOSTNAME, NEW_IPC, NEW_PIDS, NEW_NETWORK = 0x00020000, 0x04000000, 0x08000000, 0x20000000, 0x40000000
READ_ONLY, REMOUNT, BIND, RECURSIVE, PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x40000

_SET_DEATH_SIGNAL, _DROP_FROM_BOUNDING_SET, _NO_NEW_PRIVILEGES = 1, 24, 38
_SIGKILL = 9
_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(kinds: int) -> None:
    """Moves this process into new namespaces of those kinds; of process ids, its children."""
    _checked(_libc.unshare(kinds), "unshare")


def enter(namespace: str) -> None:
    """Moves this process into a namespace that is there, as /proc/PID/ns/net."""
    with open(namespace) as file:
        _checked(_libc.setns(file.fileno(), 0), f"setns {namespace}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    done = _libc.mount(source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None)
    _checked(done, f"mount {source} on {target}")


def bind(source: str, target: str, *, read_only: bool) -> None:
    """Shows a file or folder, with all that is mounted below it, at another place too."""
    mount(source, target, flags=BIND | RECURSIVE)
    if read_only:
        mount("none", target, flags=BIND | REMOUNT | READ_ONLY)


def set_hostname(name: str) -> None:
    encoded = name.encode()
    _checked(_libc.sethostname(encoded, len(encoded)), "sethostname")


def die_with_parent() -> None:
    """Has the kernel kill this process when the thread that forked it ends, however that ends. A change of user takes it back."""
    _checked(_libc.prctl(_SET_DEATH_SIGNAL, _SIGKILL, 0, 0, 0), "prctl")


def give_up_privileges() -> None:
    """Takes all capabilities out of reach, also of programs that would gain them."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for capability in range(last + 1):
        _checked(_libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0), f"drop capability {capability}")
    _checked(_libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), "no new privileges")
