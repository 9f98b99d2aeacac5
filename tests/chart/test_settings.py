"""The chart and the services' settings agree: no variable that no setting is called, no setting that cannot be set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, get_args

import pytest
from pydantic.fields import FieldInfo
from support.chart import COMPONENTS, VALUE_FILES, environment, generator, render, rendered, values_of, workload

from assay_kit.settings import PREFIX, SERVICES

generate_chart = generator()

SET_IN = {
    "tls_dir": "mtls",
    "kafka_bootstrap": "ha",
    "kafka_create_topics": "mtls",
    "kafka_security_protocol": "ha",
    "kafka_sasl_mechanism": "ha",
    "kafka_username": "ha",
    "kafka_password": "ha",
    "kafka_tls_dir": "ha",
    "database_url": "ha",
    "reward_http_host": "external-kafka",
    "reward_preload": "gpu",
    "policy_preload": "gpu",
    "policy_openai_api_key": "external-kafka",
}
"""The file of values that sets a setting which the default values don't."""

SETTERS: dict[str, set[str]] = {
    "database_url": {"cleaning", "training", "evaluation"},  # those with jobs
    "cleaning_target": {"evaluation"},
    "reward_target": {"evaluation", "training", "policy"},
    "policy_target": {"evaluation"},
    "training_target": {"evaluation"},
    "evaluation_target": set(),
}
"""The components that are given a setting, where not all are that have it."""


def fields_of(component: str) -> dict[str, FieldInfo]:
    fields: dict[str, FieldInfo] = generate_chart.settings_of(component).model_fields
    return fields


def variables(component: str, name: str) -> set[str]:
    enabled = (values_of(name).get(component) or {}).get("enabled", True)
    return {key for key in environment(workload(rendered(name), component)) if key.startswith(PREFIX)} if enabled else set()


def test_the_components_of_the_chart_are_the_services() -> None:
    assert set(COMPONENTS) == set(SERVICES)


@pytest.mark.parametrize("name", VALUE_FILES)
@pytest.mark.parametrize("component", COMPONENTS)
def test_every_variable_of_a_pod_is_a_setting_of_its_service(component: str, name: str) -> None:
    assert variables(component, name) <= {f"{PREFIX}{field.upper()}" for field in fields_of(component)}


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_setting_is_taken_by_the_settings_block_or_set_by_the_chart_itself(component: str) -> None:
    schema = json.loads((generate_chart.CHART / "values.schema.json").read_text())
    takes = set(schema["properties"][component]["properties"]["settings"]["properties"])
    assert takes | set(generate_chart.WIRED) >= set(fields_of(component))
    assert not takes & set(generate_chart.WIRED)


@pytest.mark.parametrize("field", sorted(generate_chart.WIRED))
def test_what_the_chart_says_it_sets_itself_it_sets(field: str) -> None:
    components = [component for component in COMPONENTS if field in fields_of(component)]
    assert components, f"{field} is no setting any more"
    if field == "policy_tgi_token":
        values = {"generation": {"external": {"existingSecret": "servers", "tgiKey": "token"}}}
        source = environment(workload(render(values), "policy"))["ASSAY_POLICY_TGI_TOKEN"]
        assert source == {"secretKeyRef": {"name": "servers", "key": "token"}}
        return
    name = SET_IN.get(field, "default")
    setters = {component for component in components if f"{PREFIX}{field.upper()}" in variables(component, name)}
    assert setters == SETTERS.get(field, set(components))


def _another(field: FieldInfo) -> Any:
    """A value that the setting takes and does not have."""
    default = field.get_default(call_default_factory=True)
    choices = [choice for choice in get_args(field.annotation) if isinstance(choice, str)]
    if choices:
        return next(choice for choice in choices if choice != default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default / 2
    return "other"


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_value_of_a_settings_block_arrives_in_the_service_unharmed(component: str) -> None:
    cls = generate_chart.settings_of(component)
    wanted = {name: _another(field) for name, field in cls.model_fields.items() if name not in generate_chart.WIRED}
    found = environment(workload(render({component: {"settings": wanted}}), component))
    given = {name: value for name, value in found.items() if name.startswith(PREFIX) and isinstance(value, str)}
    done = subprocess.run(
        [sys.executable, "-c", f"import json; from assay_{component}.settings import *; print({cls.__name__}().model_dump_json())"],
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert {name: read[name] for name in wanted} == wanted


def test_a_component_s_settings_win_over_those_of_all_and_null_leaves_one_to_the_service() -> None:
    values = {"settings": {"log_level": "WARNING", "threads": 2}, "reward": {"settings": {"log_level": "DEBUG"}}}
    objects = render(values)
    assert environment(workload(objects, "reward"))["ASSAY_LOG_LEVEL"] == "DEBUG"
    assert environment(workload(objects, "policy"))["ASSAY_LOG_LEVEL"] == "WARNING"
    assert environment(workload(objects, "reward"))["ASSAY_THREADS"] == "2"
    assert "ASSAY_LOG_LEVEL" not in environment(workload(render({"settings": {"log_level": None}}), "reward"))


def test_large_numbers_keep_all_their_digits() -> None:
    values = {"reward": {"settings": {"reward_queue_tokens": 67108864, "reward_http_timeout_seconds": 0.25}}}
    found = environment(workload(render(values), "reward"))
    assert found["ASSAY_REWARD_QUEUE_TOKENS"] == "67108864"
    assert found["ASSAY_REWARD_HTTP_TIMEOUT_SECONDS"] == "0.25"


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_service_takes_the_environment_that_its_pod_has(component: str) -> None:
    found = environment(workload(rendered("ha"), component))
    referenced = {"ASSAY_DATABASE_URL": "postgresql://assay:secret@db/assay", "ASSAY_INSTANCE": "pod-0"}
    given = {name: value if isinstance(value, str) else referenced.get(name, "from-a-secret") for name, value in found.items()}
    module = [sys.executable, "-c", f"""
import sys
from assay_kit.settings import load_settings
from assay_{component}.settings import {component.capitalize()}Settings
load_settings({component.capitalize()}Settings, "{component}", ["--print-config"])
"""]  # fmt: skip
    done = subprocess.run(module, env={"PATH": os.environ["PATH"], **given}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "ASSAY_INSTANCE=pod-0" in done.stdout
    assert "secret@" not in done.stdout
