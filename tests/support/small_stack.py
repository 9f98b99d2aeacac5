"""A stack in a process of its own: python small_stack.py FOLDER. Prints its children's ids, then runs until it is told to end."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.small_service import NAME

from assay_cli.stack import LocalStack, Service

SMALL = str(Path(__file__).with_name("small_service.py"))


def small(name: str, *wishes: str) -> Service:
    return Service(name=name, command=(sys.executable, SMALL, *wishes), grpc_services=(NAME,))


def main(folder: str) -> None:
    with LocalStack(folder, kafka_bootstrap="", services=[small("first", "child"), small("second")]) as stack:
        ids = [status.pid for status in stack.processes.values()]
        print(*ids, Path(folder, "first", "child").read_text(), flush=True)
        stack.run_forever()


if __name__ == "__main__":
    main(sys.argv[1])
