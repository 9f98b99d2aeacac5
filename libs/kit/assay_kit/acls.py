"""Who may do what in Kafka: the least that each service, the clients and the operator need, from the tables of topics and groups.

`python -m assay_kit.acls` prints the table for the docs, with `--strimzi` the specs of Strimzi's KafkaUsers.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from assay_kit.groups import GROUPS, OF_CLIENTS, REPLAY, transactional_ids
from assay_kit.topics import ALL_TOPICS, CLIENTS, OPERATOR, SERVICES

USERS: Final = (*SERVICES, CLIENTS, OPERATOR)
"""Who has rights; the names of the users in a cluster are made of these."""

Resource = Literal["topic", "group", "transactionalId"]
Operation = Literal["Read", "Write", "Describe"]

_RESOURCES = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactionalId": ResourceType.TRANSACTIONAL_ID}
_OPERATIONS = {"Read": ACLOperation.READ, "Write": ACLOperation.WRITE, "Describe": ACLOperation.DESCRIBE}


@dataclass(frozen=True, kw_only=True)
class AclRule:
    """A right. What is in no rule is refused."""

    user: str
    """One of `USERS`."""
    resource: Resource
    name: str
    """Of the topic, group or transactional id."""
    prefix: bool = False
    """Whether it is enough that the name begins so."""
    operations: tuple[Operation, ...]

    def as_admin(self, principal: str) -> list[ACL]:
        """For kafka-python's admin client, one for each operation.

        Args:
            principal: as the brokers know the user, for example "User:assay-reward".
        """
        pattern = ResourcePattern(
            _RESOURCES[self.resource], self.name, ACLResourcePatternType.PREFIXED if self.prefix else ACLResourcePatternType.LITERAL
        )
        return [ACL(principal, "*", _OPERATIONS[operation], ACLPermissionType.ALLOW, pattern) for operation in self.operations]

    def as_strimzi(self) -> dict[str, Any]:
        """An item of `spec.authorization.acls` of a KafkaUser."""
        resource = {"type": self.resource, "name": self.name, "patternType": "prefix" if self.prefix else "literal"}
        return {"resource": resource, "operations": list(self.operations)}


def rules_of(user: str) -> list[AclRule]:
    """The rights of one of `USERS`."""
    rules = []
    for topic in ALL_TOPICS:
        operations: list[Operation] = []
        if user in topic.consumers:
            operations.append("Read")
        # The operator sends letters back to where they came from: what is read by a group.
        if user in topic.producers or (user == OPERATOR and topic in {group.topic for group in GROUPS}):
            operations.append("Write")
        if operations:
            # Both imply Describe.
            rules.append(AclRule(user=user, resource="topic", name=topic.name, operations=tuple(operations)))
    for group in GROUPS:
        if group.service == user:
            ids = transactional_ids(user, group.name)
            rules.append(AclRule(user=user, resource="group", name=group.name, operations=("Read",)))
            rules.append(AclRule(user=user, resource="transactionalId", name=ids, prefix=True, operations=("Write", "Describe")))
    if user == OPERATOR:
        rules.append(AclRule(user=user, resource="group", name=REPLAY, prefix=True, operations=("Read",)))
        rules.append(AclRule(user=user, resource="transactionalId", name=REPLAY, prefix=True, operations=("Write", "Describe")))
    if user == CLIENTS:
        rules.append(AclRule(user=user, resource="group", name=OF_CLIENTS, prefix=True, operations=("Read",)))
    return rules


def kafka_topics() -> list[dict[str, Any]]:
    """The topics as Strimzi's KafkaTopics: each `name`, and `spec` without replicas, which are the cluster's matter."""
    return [
        {"name": topic.name, "spec": {"topicName": topic.name, "partitions": topic.partitions, "config": topic.configs}}
        for topic in ALL_TOPICS
    ]


def kafka_users(authentication: str = "scram-sha-512") -> list[dict[str, Any]]:
    """The users as Strimzi's KafkaUsers: each `name`, to which the cluster's manifests put something before, and `spec`."""
    return [
        {
            "name": user,
            "spec": {
                "authentication": {"type": authentication},
                "authorization": {"type": "simple", "acls": [rule.as_strimzi() for rule in rules_of(user)]},
            },
        }
        for user in USERS
    ]


def as_markdown() -> str:
    """The rights for the docs, a row each."""
    rows = ["| user | resource | name | may |", "|---|---|---|---|"]
    for user in USERS:
        for rule in rules_of(user):
            name = f"`{rule.name}`…" if rule.prefix else f"`{rule.name}`"
            rows.append(f"| {user} | {rule.resource} | {name} | {', '.join(rule.operations)} |")
    return "\n".join(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m assay_kit.acls", description="Who may do what in Kafka.")
    parser.add_argument("--strimzi", action="store_true", help="KafkaTopics and KafkaUsers as JSON, which is YAML, too")
    asked = parser.parse_args(argv)
    print(json.dumps({"topics": kafka_topics(), "users": kafka_users()}, indent=2) if asked.strimzi else as_markdown())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
