"""The local stack under load, watched by a real Prometheus."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from assay_cli.ports import free_ports
from assay_cli.stack import LocalStack
from assay_client.client import AssayClient
from assay_client.endpoints import Endpoints
from assay_data.conversations import PreferencePair
from monitoring import dcgm
from monitoring.judge import judge
from monitoring.load import STUDY, Load, Place
from monitoring.prometheus import SCRAPE_SECONDS, Prometheus, Target

NAMESPACE = "assay"


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What was seen.

    Attributes:
        prometheus: still there to be asked.
        pages: URL of each service's metrics, by service.
        start: when the load began, in seconds.
        end: when it had ended and been scraped.
    """

    prometheus: Prometheus
    pages: dict[str, str]
    start: float
    end: float


@contextmanager
def watched(folder: Path, *, study: Path = STUDY, pairs: Sequence[PreferencePair] = (), seconds: float = 6.0) -> Iterator[Watched]:
    """Services, broker and Prometheus after a load, while the context is open.

    Args:
        folder: for all state.
        study: see `Load`.
        pairs: see `Load`.
        seconds: see `Load`.
    """
    [http] = free_ports(1)
    environment = {
        "ASSAY_REWARD_HTTP_PORT": str(http),
        "ASSAY_REWARD_CACHE_MIB": "8",
        "ASSAY_REWARD_DRIFT_SCORES": "500",
        "ASSAY_DRAIN_SECONDS": "2",
    }
    with judge(folder / "judge") as judging, LocalStack(folder / "state", extra_env=environment) as stack:
        pages = json.loads((stack.data_dir / "endpoints.json").read_text())["metrics"]
        with dcgm.exporter("assay-reward-0", NAMESPACE) as gpu, Prometheus(folder / "prometheus", _targets(pages, gpu)) as prometheus:
            prometheus.wait_until_all_are_scraped()
            start = time.time()
            with AssayClient(Endpoints.from_folder(stack.data_dir), patience_s=30, timeout_s=60) as client:
                place = Place(
                    client=client,
                    rewards_target=stack.endpoints["reward"],
                    rewards_http=f"http://127.0.0.1:{http}",
                    kafka=stack.kafka_bootstrap,
                    judge=judging,
                    folder=folder / "load",
                )
                Load(place, study=study, pairs=pairs, seconds=seconds).run()
            time.sleep(3 * SCRAPE_SECONDS)  # the last of it is scraped, and the rules are evaluated on it
            yield Watched(prometheus=prometheus, pages=pages, start=start, end=time.time())


def _targets(pages: dict[str, str], gpu: str) -> list[Target]:
    """Targets with the labels that Kubernetes' discovery adds."""
    found = [
        Target(
            job=f"assay-{name}",
            address=urlsplit(page).netloc,
            labels={"namespace": NAMESPACE, "pod": f"assay-{name}-0", "container": name, "service": f"assay-{name}", "endpoint": "metrics"},
        )
        for name, page in pages.items()
    ]
    exporter = {"namespace": "gpu-operator", "pod": "nvidia-dcgm-exporter-0", "container": "nvidia-dcgm-exporter"}
    return [*found, Target(job="nvidia-dcgm-exporter", address=gpu, labels=exporter)]
