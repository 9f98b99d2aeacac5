"""The rights in Kafka follow from the tables of topics and groups, and those from what the services do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from assay_kit import acls, topics
from assay_kit.acls import USERS, kafka_topics, kafka_users, rules_of
from assay_kit.groups import GROUPS
from assay_kit.topics import ALL_TOPICS, DEAD_LETTERS, JOBS_REQUESTED, OPERATOR, SERVICES

SOURCES = Path(__file__).parents[3] / "services"
OF_THE_KIT = {"cleaning", "training", "evaluation"}
"""Services that take jobs through the kit, without naming the topic themselves."""


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_in_the_table_for_the_topics_that_its_code_names(service):
    source = "\n".join(path.read_text() for path in (SOURCES / service).rglob("*.py"))
    constants = {name: value for name, value in vars(topics).items() if value in ALL_TOPICS}
    named = {value.name for name, value in constants.items() if name in source}
    named |= {DEAD_LETTERS.name}  # every worker writes them
    if service in OF_THE_KIT:
        assert "JobRequestWorker(" in source
        named |= {JOBS_REQUESTED.name}
    assert {topic.name for topic in ALL_TOPICS if service in topic.producers + topic.consumers} == named


def test_no_right_is_for_everything():
    for user in USERS:
        for rule in rules_of(user):
            assert rule.name not in ("", "*") and set(rule.operations) <= {"Read", "Write", "Describe"}
            assert rule.resource != "topic" or not rule.prefix
            # A prefix ends where another name could not go on by chance.
            assert not rule.prefix or rule.name[-1] in "-."


def test_the_groups_of_one_service_are_no_prefix_rights_of_another():
    for user in USERS:
        for rule in rules_of(user):
            for group in GROUPS:
                covered = rule.resource == "group" and (group.name.startswith(rule.name) if rule.prefix else group.name == rule.name)
                assert not covered or group.service == user


def test_strimzi_gets_the_same_rules():
    users = {user["name"]: user["spec"] for user in kafka_users("tls")}
    assert set(users) == {*SERVICES, "clients", OPERATOR}
    assert users["reward"]["authentication"] == {"type": "tls"}
    assert users["reward"]["authorization"]["acls"][0] == {
        "resource": {"type": "topic", "name": "assay.rewards.requested.v1", "patternType": "literal"},
        "operations": ["Read"],
    }
    assert {"type": "transactionalId", "name": "assay-reward-assay-reward-", "patternType": "prefix"} in [
        acl["resource"] for acl in users["reward"]["authorization"]["acls"]
    ]
    assert [topic["spec"]["topicName"] for topic in kafka_topics()] == [topic.name for topic in ALL_TOPICS]


def test_the_module_prints_the_table_and_the_specs():
    def printed(*options):
        return subprocess.run([sys.executable, "-m", "assay_kit.acls", *options], capture_output=True, text=True, check=True).stdout

    assert printed().strip() == acls.as_markdown()
    assert json.loads(printed("--strimzi")) == {"topics": kafka_topics(), "users": kafka_users()}
