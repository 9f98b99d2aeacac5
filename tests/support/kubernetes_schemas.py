"""Strict schemas of Kubernetes objects: of built-in kinds for four versions, of custom resources from their definitions."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import referencing
import referencing.jsonschema
import yaml

VERSIONS = ("1.29", "1.33", "1.34", "1.37")
_SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"
_DEFINITIONS = "https://kubernetes.io/api/_definitions.json"
_BUILT_IN_GROUPS = (".k8s.io",)


class NoSchema(Exception):
    """Kubernetes of that version has no such kind."""


def is_custom(manifest: Mapping[str, Any]) -> bool:
    """Whether the kind is defined by a CustomResourceDefinition."""
    group, slash, _ = manifest["apiVersion"].partition("/")
    return bool(slash) and "." in group and (not group.endswith(_BUILT_IN_GROUPS) or group.startswith(("gateway.networking", "jobset.")))


def complaints(manifest: Mapping[str, Any], version: str) -> list[str]:
    """All that is wrong with an object of a built-in kind: unknown and missing fields, wrong types.

    Raises:
        NoSchema: this version has no such kind.
    """
    return [
        f"{'.'.join(map(str, error.path))}: {error.message[:200]}"
        for error in _validator(manifest["apiVersion"], manifest["kind"], version).iter_errors(manifest)
    ]


@functools.cache
def _validator(api_version: str, kind: str, version: str) -> jsonschema.Draft202012Validator:
    folder = _SCHEMAS / f"v{version}.0-local-strict"
    group, slash, in_group = api_version.rpartition("/")
    suffix = f"{group.split('.')[0]}-{in_group}" if slash else in_group
    file = folder / f"{kind.lower()}-{suffix}.json"
    if not file.exists():
        raise NoSchema(f"Kubernetes {version} has no {kind} of {api_version}")
    return jsonschema.Draft202012Validator(json.loads(file.read_text()), registry=_registry(version))


@functools.cache
def _registry(version: str) -> referencing.Registry[Any]:
    text = (_SCHEMAS / f"v{version}.0-local-strict" / "_definitions.json").read_text()
    resource = referencing.Resource(contents=json.loads(text), specification=referencing.jsonschema.DRAFT202012)
    return referencing.Registry().with_resources([(_DEFINITIONS, resource), ("_definitions.json", resource)])


class CustomSchemas:
    """Strict schemas made of the definitions in a folder."""

    def __init__(self, folder: Path) -> None:
        """Reads every definition."""
        self._validators: dict[tuple[str, str], jsonschema.Draft202012Validator] = {}
        for file in sorted(folder.glob("*.yaml")):
            for document in yaml.safe_load_all(file.read_text()):
                if document and document["kind"] == "CustomResourceDefinition":
                    self._take(document["spec"])

    def _take(self, spec: dict[str, Any]) -> None:
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"] = {**schema["properties"], "metadata": {"type": "object"}}
            key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            self._validators[key] = jsonschema.Draft202012Validator(schema)

    def complaints(self, manifest: Mapping[str, Any]) -> list[str]:
        """All that is wrong with a custom resource.

        Raises:
            NoSchema: the folder has no such definition.
        """
        key = (manifest["apiVersion"], manifest["kind"])
        if key not in self._validators:
            raise NoSchema(f"no definition of {key}")
        return [f"{'.'.join(map(str, error.path))}: {error.message[:200]}" for error in self._validators[key].iter_errors(manifest)]


def _strict(node: Any) -> Any:
    """openAPIV3Schema as a JSON schema in which an object has no fields but those declared."""
    if isinstance(node, list):
        return [_strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    out = {
        key: _strict(value)
        for key, value in node.items()
        if key not in ("properties", "description", "format", "default") and not key.startswith("x-")
    }
    if "properties" in node:
        out["properties"] = {name: _strict(value) for name, value in node["properties"].items()}
        if node.get("type") == "object" and not node.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in node:
            out["additionalProperties"] = False
    if node.get("nullable") and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out
