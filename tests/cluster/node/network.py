"""The pods' network: a bridge of this machine, and for each pod an address, a localhost and ports of its own.

Addresses are not of 127.0.0.0/8, as the API server refuses those in EndpointSlices. Pods reach each other and this machine's bridge
address, and nothing beyond; NetworkPolicies are not enforced.
"""

from __future__ import annotations

import subprocess

from cluster.node.commands import call

_FIRST, _LAST = 10, 250


class PodNetwork:
    """Open it before pods come, close it when they have gone."""

    def __init__(self, subnet: str) -> None:
        """Takes the first three numbers of the addresses, as in "10.231.7"."""
        self._subnet = subnet
        self.bridge = "assay" + subnet.rpartition(".")[2]
        self.address = f"{subnet}.1"
        """Address of this machine among the pods."""
        self._taken: set[int] = set()
        self._last = _FIRST - 1

    def open(self) -> None:
        for command in (
            f"link add {self.bridge} type bridge",
            f"addr add {self.address}/24 dev {self.bridge}",
            f"link set {self.bridge} up",
        ):
            subprocess.run(["ip", *command.split()], check=True)

    def close(self) -> None:
        subprocess.run(["ip", "link", "del", self.bridge], check=True)

    async def connect(self, pid: int) -> str:
        """Gives the network namespace of that process an address, and returns it."""
        number = self._free()
        address, outside = f"{self._subnet}.{number}", f"{self.bridge}v{number}"
        await call("ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        await call("ip", "link", "set", outside, "master", self.bridge, "up")
        inside = f"link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {self.address}\n"
        await call("nsenter", "--target", str(pid), "--net", "ip", "-batch", "-", given=inside)
        return address

    def release(self, address: str) -> None:
        """Takes back an address whose pod is gone; its interface went with it."""
        self._taken.discard(int(address.rpartition(".")[2]))

    def _free(self) -> int:
        """The next one round, so that the address of a pod that has just gone rests."""
        span = _LAST - _FIRST + 1
        for step in range(1, span + 1):
            number = _FIRST + (self._last - _FIRST + step) % span
            if number not in self._taken:
                self._taken.add(number)
                self._last = number
                return number
        raise RuntimeError(f"all {span} addresses of {self._subnet}.0/24 are taken")
