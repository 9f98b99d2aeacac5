#!/usr/bin/env python
"""Writes what of helm/assay follows from other files: the schema of the values, the table of topics, the README's table of values.

`--check` writes nothing and fails where a file is not what it would write.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from assay_kit.acls import kafka_topics, kafka_users
from assay_kit.settings import ServiceSettings

CHART = Path(__file__).parents[1] / "helm" / "assay"

WIRED = {
    "instance": "the pod's name",
    "grpc_host": "`bindAddress`",
    "grpc_port": "50051, as in the Services",
    "health_port": "50052, as in the probes",
    "metrics_host": "`bindAddress`",
    "metrics_port": "9090, as in the Services",
    "data_dir": "/var/lib/assay, where `persistence` puts the volume",
    "tls_dir": "`tls`",
    "kafka_bootstrap": "`kafka`",
    "kafka_create_topics": "`kafka.createTopics`",
    "kafka_security_protocol": "`kafka`",
    "kafka_sasl_mechanism": "`kafka`",
    "kafka_username": "`kafka`",
    "kafka_password": "`kafka`, from a secret",
    "kafka_tls_dir": "`kafka`",
    "database_url": "`database`, from a secret",
    "cleaning_target": "the release's own cleaning service",
    "reward_target": "the release's own reward service",
    "policy_target": "the release's own policy service",
    "training_target": "the release's own training service",
    "evaluation_target": "the release's own evaluation service",
    "reward_preload": "`reward.preload`",
    "reward_http_host": "`bindAddress`",
    "reward_http_port": "8080 with `reward.http.enabled`",
    "policy_preload": "`policy.preload` and `generation.external`",
    "policy_openai_api_key": "`generation.external`, from a secret",
    "policy_tgi_token": "`generation.external`, from a secret",
}
"""Settings that no `settings` block takes, for the chart sets them itself: from which values, or to what."""

TABLE_BEGINS = "<!-- values: written by scripts/generate_chart.py -->"
TABLE_ENDS = "<!-- end of values -->"


@dataclass(frozen=True, kw_only=True)
class Value:
    """A documented key of values.yaml."""

    path: str
    default: Any
    description: str


def settings_of(component: str) -> type[ServiceSettings]:
    """The Settings class of a component's service."""
    module = importlib.import_module(f"assay_{component}.settings")
    found: type[ServiceSettings] = getattr(module, f"{component.capitalize()}Settings")
    return found


def settings_schema(cls: type[ServiceSettings]) -> dict[str, Any]:
    """What a `settings` block may hold: the class's fields but for the wired ones; null leaves a setting to the service."""
    properties = cls.model_json_schema()["properties"]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _nullable(properties[name]) for name in cls.model_fields if name not in WIRED},
    }


def _nullable(field: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in field.items() if key not in ("title", "default", "format", "writeOnly")}
    if "enum" in kept:
        return {**kept, "type": ["string", "null"], "enum": [*kept["enum"], None]}
    return {**kept, "type": [kept["type"], "null"]} if "type" in kept else kept


def values_schema() -> dict[str, Any]:
    """values.schema.json: the source's root with definitions and one block a component."""
    source = yaml.safe_load((CHART / "values.schema.yaml").read_text())
    schema: dict[str, Any] = {**source["schema"], "definitions": source["definitions"]}
    schema["properties"]["settings"] = settings_schema(ServiceSettings)
    everything = [trait for trait in source["traits"] if trait in ("all", "accelerated", "deployed", "scaled")]
    schema["properties"]["defaults"] = _block(source["traits"], everything, ServiceSettings)
    for component, traits in source["components"].items():
        schema["properties"][component] = _block(source["traits"], traits, settings_of(component))
    return schema


def _block(all_traits: dict[str, Any], traits: list[str], cls: type[ServiceSettings]) -> dict[str, Any]:
    properties = {key: value for trait in traits for key, value in all_traits[trait].items()}
    return {"type": "object", "additionalProperties": False, "properties": {**properties, "settings": settings_schema(cls)}}


def kafka_table() -> dict[str, Any]:
    """files/kafka.yaml: the topics, for partitions and KafkaTopics, and who may do what, for KafkaUsers."""
    return {
        "topics": [{"name": topic["name"], **topic["spec"]} for topic in kafka_topics()],
        "users": {user["name"]: user["spec"]["authorization"] for user in kafka_users()},
    }


def documented_values(text: str) -> Iterator[Value]:
    """The keys of a values.yaml with a comment that begins with `--`, in order."""
    values = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    description = ""
    for line in text.splitlines():
        comment = re.match(r"\s*# -- (.*)", line)
        key = re.match(r"(\s*)([A-Za-z_]\w*):", line)
        if comment:
            description = comment[1]
        elif key:
            indent = len(key[1])
            path = [(depth, name) for depth, name in path if depth < indent] + [(indent, key[2])]
            if description:
                yield Value(
                    path=".".join(name for _, name in path), default=_at(values, [name for _, name in path]), description=description
                )
            description = ""


def _at(values: Any, path: list[str]) -> Any:
    for name in path:
        values = values[name]
    return values


def values_table(text: str) -> str:
    """The README's table."""
    rows = ["| key | default | what it is |", "|---|---|---|"]
    for value in documented_values(text):
        whole = f"`{json.dumps(value.default)}`"
        shown = whole if len(whole) <= 90 else "see values.yaml"
        rows.append(f"| `{value.path}` | {shown} | {value.description} |")
    return "\n".join(rows)


def wired_table() -> str:
    """The README's table of settings that have no place in `settings`."""
    return "\n".join(["| setting | set from |", "|---|---|", *(f"| `{name}` | {source} |" for name, source in WIRED.items())])


def readme(text: str) -> str:
    """The README with its tables renewed."""
    before, _, rest = text.partition(TABLE_BEGINS)
    _, _, after = rest.partition(TABLE_ENDS)
    tables = "\n\n".join(
        [
            values_table((CHART / "values.yaml").read_text()),
            "Settings of the services that the chart sets itself, so that no `settings` block takes them:",
            wired_table(),
        ]
    )
    return f"{before}{TABLE_BEGINS}\n\n{tables}\n\n{TABLE_ENDS}{after}"


def generated() -> dict[Path, str]:
    """Every generated file with its text."""
    header = "# Written by scripts/generate_chart.py from assay_kit; do not edit.\n"
    return {
        CHART / "values.schema.json": json.dumps(values_schema(), indent=2) + "\n",
        CHART / "files" / "kafka.yaml": header + yaml.safe_dump(kafka_table(), sort_keys=False, width=140),
        CHART / "README.md": readme((CHART / "README.md").read_text()),
    }


def main(arguments: list[str]) -> int:
    """Writes the files, or says which are stale."""
    stale = [path for path, text in generated().items() if not path.exists() or path.read_text() != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(CHART.parents[1])} is stale; run make chart", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(generated()[path])
        print(f"wrote {path.relative_to(CHART.parents[1])}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
