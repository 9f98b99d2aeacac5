"""Holds the network, the hostname and the IPC of a pod: python pause.py HOSTNAME. Prints a line once they are there, then waits."""

import signal
import sys

import system_calls


def main(hostname: str) -> None:
    system_calls.die_with_parent()
    system_calls.unshare(system_calls.NEW_NETWORK | system_calls.NEW_HOSTNAME | system_calls.NEW_IPC)
    system_calls.set_hostname(hostname)
    print("ready", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
