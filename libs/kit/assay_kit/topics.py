"""The one table of Kafka topics.

Everything that speaks of topics is derived from here: what workers read and write, what `ensure_topics` creates, the
cluster's manifests, who may do what there (`assay_kit.acls`), and the table in the docs (`python -m assay_kit.topics` prints it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from google.protobuf.message import Message

from assay.cleaning.v1 import cleaning_pb2
from assay.common.v1 import common_pb2
from assay.jobs.v1 import jobs_pb2
from assay.policy.v1 import policy_pb2
from assay.reward.v1 import reward_pb2

MessageType: TypeAlias = type[Message]

MAX_MESSAGE_BYTES: Final = 1_048_576
"""Largest record of a topic in bytes unless the topic says otherwise: Apache Kafka's own default, 1 MiB."""

SERVICES: Final = ("cleaning", "reward", "policy", "training", "evaluation")
"""The services, as they are named in `Topic.producers` and `Topic.consumers`."""

CLIENTS: Final = "clients"
"""Whoever is not one of the services: command line, notebooks, other systems."""

OPERATOR: Final = "operator"
"""The person who reads the dead letters and sends them back."""


@dataclass(frozen=True, kw_only=True)
class Topic:
    """One topic and what is true of it everywhere."""

    name: str
    """Name in the broker; ends with the version of its contract."""
    key: str
    """What the key of a record is, in words. Records of one key keep their order."""
    message: MessageType
    """Protobuf class of the values."""
    partitions: int = 6
    """Partitions at creation, > 0: as many members of one group can work at once."""
    compacted: bool = False
    """Whether only the newest record of each key is kept (for ever) instead of all for the broker's retention time."""
    max_message_bytes: int = MAX_MESSAGE_BYTES
    """Largest record in bytes, key and headers included."""
    producers: tuple[str, ...]
    """Who writes. In a cluster nobody else may."""
    consumers: tuple[str, ...]
    """Who reads. In a cluster nobody else may."""

    @property
    def configs(self) -> dict[str, str]:
        """The broker's settings of this topic that differ from the broker's defaults."""
        configs: dict[str, str] = {}
        if self.compacted:
            configs["cleanup.policy"] = "compact"
        if self.max_message_bytes != MAX_MESSAGE_BYTES:
            configs["max.message.bytes"] = str(self.max_message_bytes)
        return configs


PREFERENCES_RAW: Final = Topic(
    name="assay.preferences.raw.v1",
    key="prompt hash",
    message=common_pb2.PreferencePair,
    producers=("evaluation", CLIENTS),
    consumers=("cleaning",),
)
PREFERENCES_LABELLED: Final = Topic(
    name="assay.preferences.labelled.v1",
    key="prompt hash",
    message=cleaning_pb2.LabelledPair,
    producers=("cleaning",),
    consumers=("evaluation", CLIENTS),
)
PREFERENCES_CLEAN: Final = Topic(
    name="assay.preferences.clean.v1",
    key="prompt hash",
    message=common_pb2.PreferencePair,
    producers=("cleaning",),
    consumers=(CLIENTS,),
)
GENERATIONS_REQUESTED: Final = Topic(
    name="assay.generations.requested.v1",
    key="prompt hash",
    message=policy_pb2.GenerateRequest,
    producers=(CLIENTS,),
    consumers=("policy",),
)
GENERATIONS_COMPLETED: Final = Topic(
    name="assay.generations.completed.v1",
    key="prompt hash",
    message=policy_pb2.Generation,
    producers=("policy",),
    consumers=(CLIENTS,),
)
REWARDS_REQUESTED: Final = Topic(
    name="assay.rewards.requested.v1",
    key="prompt hash",
    message=reward_pb2.ScoreGroupRequest,
    producers=("evaluation", CLIENTS),
    consumers=("reward",),
)
REWARDS_SCORED: Final = Topic(
    name="assay.rewards.scored.v1",
    key="prompt hash",
    message=reward_pb2.ScoreGroupResponse,
    producers=("reward",),
    consumers=("evaluation", CLIENTS),
)
JOBS_REQUESTED: Final = Topic(
    name="assay.jobs.requested.v1",
    key="job id",
    message=jobs_pb2.Job,
    partitions=3,
    producers=(CLIENTS,),
    consumers=("cleaning", "training", "evaluation"),
)
JOBS_EVENTS: Final = Topic(
    name="assay.jobs.events.v1",
    key="job id",
    message=jobs_pb2.JobEvent,
    partitions=3,
    producers=("cleaning", "training", "evaluation"),
    consumers=(CLIENTS,),
)
QUALITY_CARDS: Final = Topic(
    name="assay.quality.cards.v1",
    key="model fingerprint",
    message=common_pb2.QualityCard,
    partitions=1,
    compacted=True,
    producers=("evaluation",),
    consumers=("reward", "evaluation"),
)
DEAD_LETTERS: Final = Topic(
    name="assay.dead-letters.v1",
    key="original key",
    message=common_pb2.DeadLetter,
    partitions=1,
    max_message_bytes=2 * MAX_MESSAGE_BYTES,  # a refused message of full size, with the reason and its headers, must still fit
    producers=SERVICES,
    consumers=("evaluation", OPERATOR),
)

ALL_TOPICS: Final[tuple[Topic, ...]] = (
    PREFERENCES_RAW,
    PREFERENCES_LABELLED,
    PREFERENCES_CLEAN,
    GENERATIONS_REQUESTED,
    GENERATIONS_COMPLETED,
    REWARDS_REQUESTED,
    REWARDS_SCORED,
    JOBS_REQUESTED,
    JOBS_EVENTS,
    QUALITY_CARDS,
    DEAD_LETTERS,
)


def topic_named(name: str) -> Topic:
    """The topic of that name.

    Raises:
        KeyError: there is none; the message lists those there are.
    """
    for topic in ALL_TOPICS:
        if topic.name == name:
            return topic
    raise KeyError(f"no topic is named {name!r}; there are {', '.join(topic.name for topic in ALL_TOPICS)}")


def as_markdown(topics: Sequence[Topic] = ALL_TOPICS) -> str:
    """The table of topics for the docs, a row each."""
    rows = ["| topic | key | message | partitions | kept | from | to |", "|---|---|---|---|---|---|---|"]
    for topic in topics:
        kept = "newest per key" if topic.compacted else "retention time"
        rows.append(
            f"| `{topic.name}` | {topic.key} | `{topic.message.DESCRIPTOR.full_name}` | {topic.partitions} | {kept} "
            f"| {', '.join(topic.producers)} | {', '.join(topic.consumers)} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(as_markdown())
