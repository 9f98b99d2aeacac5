"""Runs one container's command: python container.py SPEC.json DESCRIPTOR.

In the pod's network, hostname and IPC, in mounts and process ids of its own: its root is this machine's file system under a layer of
its own, with the volumes where the container wants them. It is process 1 there and nothing that it starts outlives it. `pid N`, as this
machine counts, and in the end `exit CODE` are written to the descriptor; a negative code is a signal.
"""

import json
import os
import sys
import traceback
from typing import Any

import system_calls as calls

EMPTY = ("/tmp", "/run")


def main(spec_file: str, descriptor: int) -> None:
    calls.die_with_parent()
    with open(spec_file) as file:
        spec = json.load(file)
    for kind in ("net", "uts", "ipc"):
        calls.enter(f"/proc/{spec['pause']}/ns/{kind}")
    calls.unshare(calls.NEW_MOUNTS | calls.NEW_PIDS)
    child = os.fork()
    if child == 0:
        os.close(descriptor)
        try:
            become(spec)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(128)
    os.write(descriptor, f"pid {child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(descriptor, f"exit {os.waitstatus_to_exitcode(status)}\n".encode())


def become(spec: dict[str, Any]) -> None:
    """Turns this process into the container's."""
    calls.die_with_parent()
    calls.mount("none", "/", flags=calls.RECURSIVE | calls.PRIVATE)
    root = make_root(spec)
    os.chroot(root)
    os.chdir(spec["folder"] or "/")
    calls.give_up_privileges()
    os.setgroups(spec["groups"])
    os.setgid(spec["group"])
    os.setuid(spec["user"])
    calls.die_with_parent()
    os.umask(0o022)
    os.execvpe(spec["command"][0], spec["command"], spec["environment"])


def make_root(spec: dict[str, Any]) -> str:
    layer = spec["layer"]
    calls.mount("layer", layer, "tmpfs")
    upper, work, root = (os.path.join(layer, name) for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        os.mkdir(folder)
    calls.mount("root", root, "overlay", options=f"lowerdir=/,upperdir={upper},workdir={work}")
    calls.mount("proc", f"{root}/proc", "proc")
    calls.bind("/sys", f"{root}/sys", read_only=True)
    calls.bind("/dev", f"{root}/dev", read_only=False)
    calls.mount("shm", f"{root}/dev/shm", "tmpfs", options="size=64m,mode=1777")
    # An image has nothing of its own there; what this machine has is none of its business.
    for empty in EMPTY:
        calls.mount("empty", f"{root}{empty}", "tmpfs", options="mode=1777")
    for path, text in spec["files"].items():
        target = root + path
        if os.path.lexists(target):
            os.unlink(target)
        with open(target, "w") as file:
            file.write(text)
    # Inner mounts after outer ones.
    for one in sorted(spec["mounts"], key=lambda mount: mount["path"].count("/")):
        show(one["source"], root + one["path"], read_only=one["read_only"])
    # After the volumes: one at /tmp would hide a checkout below it.
    for path in spec["image"]:
        show(path, root + path, read_only=True)
    if spec["read_only"]:
        covered = {mount["path"] for mount in spec["mounts"]}
        for path in (*(empty for empty in EMPTY if empty not in covered), ""):
            calls.mount("root", root + path, flags=calls.REMOUNT | calls.READ_ONLY)
    return root


def show(source: str, target: str, *, read_only: bool) -> None:
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if not os.path.lexists(target):
            open(target, "w").close()
    open_the_way(target)
    calls.bind(source, target, read_only=read_only)


def open_the_way(path: str) -> None:
    """Lets any user pass through the folders above, as in an image; in the container's own layer only."""
    while (path := os.path.dirname(path)) != "/":
        try:
            os.chmod(path, os.stat(path).st_mode | 0o011)
        except OSError:  # inside a volume that is mounted read-only
            return


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
