"""Becomes an image's own command: `unshare --mount --net python enter.py ROOT CONFIG`, as a container engine would start it.

The root is read-only but for /tmp and the image's volumes, the user is the image's, and the network is a loopback of its own.
Everything is undone when the process ends, since nobody else is in its namespaces.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys

SIOCSIFFLAGS = 0x8914
IFF_UP = 1


def mount(*arguments: str) -> None:
    """Mounts in this process's namespace."""
    subprocess.run(["mount", *arguments], check=True)


def main() -> None:
    """Never returns."""
    root, config = sys.argv[1], json.loads(sys.argv[2])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    user, group = (int(part) for part in config["User"].split(":"))
    mount("--bind", root, root)
    mount("-o", "remount,bind,ro", root)
    mount("--rbind", "/dev", f"{root}/dev")
    mount("-t", "proc", "proc", f"{root}/proc")
    mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", f"{root}/tmp")
    for volume in config["Volumes"]:
        mount("-t", "tmpfs", "-o", f"uid={user},gid={group}", "tmpfs", f"{root}{volume}")
    os.chroot(root)
    os.chdir(config["WorkingDir"])
    os.setgroups([])
    os.setgid(group)
    os.setuid(user)
    environment = dict(pair.split("=", 1) for pair in config["Env"])
    os.environ["PATH"] = environment["PATH"]
    os.execvpe(config["Entrypoint"][0], config["Entrypoint"], environment)


if __name__ == "__main__":
    main()
