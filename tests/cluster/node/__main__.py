"""python -m cluster.node: a node whose pods are real processes. Needs root: namespaces, mounts, a bridge."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from cluster.node.agent import Agent
from cluster.node.client import Client
from cluster.node.network import PodNetwork


async def run(arguments: argparse.Namespace, network: PodNetwork) -> None:
    client = Client(url=arguments.url, ca=arguments.ca, token=arguments.token.read_text())
    agent = asyncio.create_task(Agent(client, name=arguments.name, network=network, folder=arguments.folder).run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, agent.cancel)
    try:
        await agent
    except asyncio.CancelledError:
        return


def main() -> None:
    parser = argparse.ArgumentParser(prog="cluster.node")
    parser.add_argument("--url", required=True, help="of the API server")
    parser.add_argument("--ca", type=Path, required=True, help="file with the API server's CA")
    parser.add_argument("--token", type=Path, required=True, help="file with a bearer token")
    parser.add_argument("--name", required=True, help="of the node")
    parser.add_argument("--subnet", required=True, help='of the pods: the first three numbers, as in "10.231.7"')
    parser.add_argument("--folder", type=Path, required=True, help="for volumes, logs, and ends.jsonl: how each pod ended")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    network = PodNetwork(arguments.subnet)
    network.open()
    try:
        asyncio.run(run(arguments, network))
    finally:
        network.close()


if __name__ == "__main__":
    main()
