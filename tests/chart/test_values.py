"""Wrong values are refused before anything is installed, in words that say what is wrong."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import helm_python
import jsonschema
import pytest
import yaml
from support.chart import CHART, VALUE_FILES, chart, helm, render, values_of

SCHEMA = jsonschema.Draft7Validator(json.loads((CHART / "values.schema.json").read_text()))


def refusal(values: dict[str, Any]) -> str:
    with pytest.raises(helm_python.HelmError) as raised:
        render(values)
    return str(raised.value)


@pytest.mark.parametrize("name", VALUE_FILES)
def test_every_file_of_values_is_taken(name: str) -> None:
    chart().validate_schema(values_of(name))


def _leaves(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, node


def _default_leaves() -> list[tuple[tuple[str, ...], Any]]:
    # What an umbrella chart puts under `global` is its own matter, and so are the keys of a node selector or a set of resources.
    free = {"nodeSelector", "requests", "limits", "annotations", "matchLabels"}
    return [(path, value) for path, value in _leaves(yaml.safe_load((CHART / "values.yaml").read_text())) if not free & set(path)]


def _with(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    node = values
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = value
    return values


def _taken(values: dict[str, Any]) -> bool:
    """Whether the schema takes these values; without Helm, for there are hundreds, and the tests below show that Helm asks it."""
    return bool(SCHEMA.is_valid(values))


def test_no_default_may_be_of_another_type() -> None:
    leaves = [(path, value) for path, value in _default_leaves() if path[0] != "global"]
    wrong = [(path, 17.5 if isinstance(value, (str, list, dict, bool)) else ["no number"]) for path, value in leaves]
    assert len(wrong) > 150
    assert [".".join(path) for path, value in wrong if _taken(_with(path, value))] == []


def test_no_key_may_be_misspelt() -> None:
    parents = {path[:-1] for path, _ in _default_leaves() if path[0] != "global"}
    assert len(parents) > 40
    assert [".".join(parent) for parent in sorted(parents) if _taken(_with((*parent, "misspelt"), 1))] == []
    assert "misspelt" in refusal({"reward": {"autoscaling": {"keda": {"misspelt": 1}}}})


def test_an_umbrella_chart_may_have_global_values_of_its_own() -> None:
    chart().validate_schema({"global": {"anything": {"at": "all"}}})


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"reward": {"image": {"tag": "latest"}}}, "tag"),
        ({"reward": {"image": {"digest": "sha256:12"}}}, "digest"),
        ({"reward": {"replicas": -1}}, "replicas"),
        ({"reward": {"replicas": "2"}}, "replicas"),
        ({"reward": {"pdb": {"maxUnavailable": 0}}}, "maxUnavailable"),
        ({"reward": {"settings": {"reward_queue_candidates": 0}}}, "reward_queue_candidates"),
        ({"reward": {"settings": {"grpc_port": 1}}}, "grpc_port"),
        ({"policy": {"settings": {"reward_dtype": "float16"}}}, "reward_dtype"),
        ({"cleaning": {"accelerator": {"enabled": True}}}, "accelerator"),
        ({"training": {"autoscaling": {"maxReplicas": 2}}}, "autoscaling"),
        ({"reward": {"autoscaling": {"hpa": {"enabled": True}, "keda": {"enabled": True}}}}, "autoscaling"),
        ({"kafka": {"mode": "external"}}, "bootstrap"),
        ({"kafka": {"mode": "external", "external": {"bootstrap": "kafka"}}}, "bootstrap"),
        ({"generation": {"mode": "external"}}, "url"),
        ({"edge": {"ingress": {"enabled": True}}}, "domain"),
        ({"externalSecrets": {"enabled": True}}, "storeRef"),
        ({"modelCache": {"models": [{"name": "a", "repository": "b/c", "revision": "main"}]}}, "revision"),
        ({"accelerator": {"resourceName": "gpu"}}, "resourceName"),
        ({"training": {"batch": "Pod"}}, "batch"),
    ],
)
def test_the_schema_refuses_what_can_never_work(values: dict[str, Any], word: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=word):
        chart().validate_schema(values)


KAFKA = {"mode": "external", "external": {"bootstrap": "kafka:9092"}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"cleaning": {"replicas": 2}}, "cleaning may have 2 pods, but without database.existingSecret its jobs are in SQLite"),
        ({"kafka": KAFKA, "cleaning": {"autoscaling": {"maxReplicas": 2, "keda": {"enabled": True}}}}, "jobs are in SQLite"),
        ({"reward": {"replicas": 2, "persistence": {"enabled": True}}}, "reward.persistence.enabled needs one pod at most"),
        ({"reward": {"autoscaling": {"keda": {"enabled": True}}}}, "kafka.mode is none"),
        (
            {"kafka": KAFKA, "reward": {"autoscaling": {"maxReplicas": 7, "keda": {"enabled": True}}}},
            "maxReplicas is 7, but assay.rewards.requested.v1 has 6 partitions",
        ),
        (
            {
                "kafka": {**KAFKA, "partitions": {"assay.rewards.requested.v1": 3}},
                "reward": {"autoscaling": {"maxReplicas": 4, "keda": {"enabled": True}}},
            },
            "has 3 partitions",
        ),
        (
            {"reward": {"autoscaling": {"minReplicas": 3, "maxReplicas": 2, "hpa": {"enabled": True}}}},
            "maxReplicas 2 is less than minReplicas 3",
        ),
        ({"reward": {"autoscaling": {"minReplicas": 0, "hpa": {"enabled": True}}}}, "minReplicas is 0"),
        (
            {
                "defaults": {"autoscaling": {"hpa": {"enabled": True}}},
                "kafka": KAFKA,
                "reward": {"autoscaling": {"keda": {"enabled": True}}},
            },
            "hpa and keda would fight",
        ),
        (
            {"kafka": {"mode": "external", "external": {"bootstrap": "k:9", "securityProtocol": "SASL_SSL"}}},
            "names a secret with username and password",
        ),
        (
            {
                "tls": {
                    "enabled": True,
                    "mode": "existingSecrets",
                    "secrets": dict.fromkeys(("cleaning", "reward", "policy", "evaluation"), "a"),
                }
            },
            "tls.secrets.training is missing",
        ),
        ({"modelCache": {"enabled": True, "accessModes": ["ReadWriteOnce"]}}, "modelCache.accessModes is ReadWriteOnce"),
        ({"artifacts": {"enabled": True, "accessModes": ["ReadWriteOnce"]}}, "artifacts.accessModes is ReadWriteOnce"),
        ({"reward": {"preload": {"rm": "cache://x"}}}, "reward.preload.rm is cache://x, but modelCache.models has no model named x"),
        ({"edge": {"domain": "a.b", "gateway": {"enabled": True}}}, "edge.gateway.parentRefs"),
    ],
)
def test_rules_over_several_values_say_what_is_wrong_and_what_would_be_right(values: dict[str, Any], said: str) -> None:
    assert said in refusal(values)


def test_dynamic_resource_allocation_is_refused_where_kubernetes_has_none() -> None:
    values = str(CHART / "ci" / "gpu-dra-values.yaml")
    for program in ("helm3", "helm4"):
        done = helm(program, "template", "rel", str(CHART), "-f", values, "--kube-version", "1.33")
        assert done.returncode != 0 and "needs Kubernetes 1.34 or later" in done.stderr
        assert helm(program, "template", "rel", str(CHART), "-f", values, "--kube-version", "1.34").returncode == 0


def test_a_cluster_older_than_the_chart_supports_is_refused() -> None:
    done = helm("helm4", "template", "rel", str(CHART), "--kube-version", "1.28")
    assert done.returncode != 0 and "1.29" in done.stderr


def test_helm_3_refuses_what_helm_4_refuses() -> None:
    for argument in ("reward.replica=2", "reward.replicas=-1", "kafka.mode=own", "reward.settings.reward_queue=1"):
        for program in ("helm3", "helm4"):
            assert helm(program, "template", "rel", str(CHART), "--set", argument).returncode != 0, (program, argument)


def test_rendering_does_not_change_the_values() -> None:
    values = values_of("ha")
    before = copy.deepcopy(values)
    render(values)
    assert values == before
