"""Where the services are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import grpc

from assay_client.errors import FailedPrecondition


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """Where each service is, as `assay_client.channels.target_of` takes it; empty where it is not known."""

    cleaning: str = ""
    """host:port of the cleaning service."""
    reward: str = ""
    """host:port of the reward service."""
    policy: str = ""
    """host:port of the policy service."""
    training: str = ""
    """host:port of the training service."""
    evaluation: str = ""
    """host:port of the evaluation service."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Endpoints:
        """Reads ASSAY_CLEANING_TARGET, ASSAY_REWARD_TARGET and so on."""
        environment = os.environ if environment is None else environment
        return cls(**{field.name: environment.get(f"ASSAY_{field.name.upper()}_TARGET", "") for field in fields(cls)})

    @classmethod
    def from_folder(cls, data_dir: str | os.PathLike[str]) -> Endpoints:
        """Reads endpoints.json of a local stack: {"reward": "host:port", …}, or {"reward": {"grpc": "host:port", …}, …}.

        Raises:
            FileNotFoundError: there is none; `assay up` writes it.
        """
        path = Path(data_dir) / "endpoints.json"
        if not path.exists():
            raise FileNotFoundError(f"{path} is not there: start the local stack with `assay up`, or set ASSAY_…_TARGET")
        written = json.loads(path.read_text())
        written = written.get("services", written)
        found: dict[str, str] = {}
        for field in fields(cls):
            one = written.get(field.name, "")
            found[field.name] = str(one.get("grpc", "")) if isinstance(one, dict) else str(one)
        return cls(**found)

    def target(self, service: str) -> str:
        """host:port of a service.

        Raises:
            FailedPrecondition: it is not known.
        """
        target: str = getattr(self, service)
        if not target:
            raise FailedPrecondition(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"the {service} service's address is not known: set ASSAY_{service.upper()}_TARGET=host:port, or start `assay up`",
            )
        return target
