"""The one list of consumer groups, and the transactional ids that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from assay_kit.topics import GENERATIONS_REQUESTED, JOBS_REQUESTED, PREFERENCES_RAW, REWARDS_REQUESTED, Topic


@dataclass(frozen=True, kw_only=True)
class Group:
    """A group of workers, one in each replica of a service."""

    name: str
    service: str
    topic: Topic
    """What it reads."""


def jobs_group(service: str) -> str:
    """Group of a service that takes jobs from Kafka."""
    return f"assay-{service}-jobs"


def transactional_ids(service: str, group: str) -> str:
    """What the transactional ids of a group's members begin with; the instance follows."""
    return f"assay-{service}-{group}-"


CLEANING: Final = Group(name="assay-cleaning", service="cleaning", topic=PREFERENCES_RAW)
REWARD: Final = Group(name="assay-reward", service="reward", topic=REWARDS_REQUESTED)
POLICY: Final = Group(name="assay-policy", service="policy", topic=GENERATIONS_REQUESTED)
JOBS: Final = tuple(Group(name=jobs_group(service), service=service, topic=JOBS_REQUESTED) for service in JOBS_REQUESTED.consumers)

GROUPS: Final[tuple[Group, ...]] = (CLEANING, REWARD, POLICY, *JOBS)

REPLAY: Final = "assay-dead-letters-replay."
"""Begins the groups and transactional ids of the operator who sends dead letters back; the topic follows."""

OF_CLIENTS: Final = "assay-clients-"
"""Begins the groups that clients may use: other systems that read what the services write."""
