"""Puts the policy service together and serves it."""

from __future__ import annotations

import sys

import torch

from assay.policy.v1 import policy_pb2_grpc
from assay_client.channels import Security
from assay_kit.kafka import KafkaConnection
from assay_kit.server import App, Door, Worker, run
from assay_kit.settings import load_settings
from assay_policy.backends.registry import Backends
from assay_policy.catalogue import Catalogue
from assay_policy.engine import Engine
from assay_policy.messages import Limits
from assay_policy.reward_client import RewardClient
from assay_policy.servicer import PolicyAdminServicer, PolicyServicer
from assay_policy.settings import PolicySettings
from assay_policy.worker import generation_worker


def app_of(settings: PolicySettings) -> App:
    """The service with its parts; nothing is loaded yet."""
    torch.set_num_threads(settings.threads)
    catalogue = Catalogue(Backends(settings), settings.data_dir / "models.json")
    engine = Engine(catalogue)
    limits = Limits(max_answers=settings.policy_max_answers, max_new_tokens=settings.policy_max_new_tokens)
    rewards = RewardClient(settings.reward_target, Security.from_folder(settings.tls_dir))
    servicer = PolicyServicer(engine=engine, catalogue=catalogue, rewards=rewards, limits=limits)
    workers: list[Worker] = []
    if settings.kafka_bootstrap:
        workers.append(generation_worker(KafkaConnection.from_settings(settings), engine, limits))
    return App(
        name="policy",
        settings=settings,
        doors=[
            Door(
                add=policy_pb2_grpc.add_PolicyServiceServicer_to_server,
                servicer=servicer,
                service_name="assay.policy.v1.PolicyService",
            ),
            Door(
                add=policy_pb2_grpc.add_PolicyAdminServiceServicer_to_server,
                servicer=PolicyAdminServicer(catalogue),
                service_name="assay.policy.v1.PolicyAdminService",
            ),
        ],
        workers=workers,
        startup=lambda: catalogue.restore(settings.policy_preload),
        shutdown=catalogue.close,
    )


def main() -> None:
    """Entry point of `python -m assay_policy` and of the `assay-policy` script."""
    raise SystemExit(run(app_of(load_settings(PolicySettings, "policy", sys.argv[1:]))))


if __name__ == "__main__":
    main()
