"""A study: a YAML text that says which stages there are; the order follows from what each stage needs.

Everything that is wrong with a text is found before anything runs, and each fault is named by its path, for example
`stages.dpo_00.reward_modle`, with what was probably meant.
"""

from __future__ import annotations

import difflib
import graphlib
import hashlib
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from assay_evaluation.stage_kinds import Ref, Stage, Strict

_MEANT, _QUOTE = "did you mean '", "'?"
NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class StudyError(Exception):
    """What is wrong with a study: pairs of the field's path and what would be right."""

    def __init__(self, violations: Sequence[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{path}: {text}" for path, text in violations))
        self.violations = tuple(violations)


class Data(Strict):
    """The preference pairs a study starts from.

    Attributes:
        uri: A file, a folder or a hub id.
        name: What the report calls it; by default the last part of the URI.
        limit: At most this many pairs, from the first; 0 means all.
    """

    uri: str = Field(min_length=1)
    name: str = ""
    limit: int = Field(default=0, ge=0)


class Study(Strict):
    """A study as it is written.

    Attributes:
        name: Letters, digits, "_" and "-"; part of the names of all it makes.
        seed: Seed of everything that is random.
        data: The preference pairs it starts from.
        stages: Its stages by name, in any order.
    """

    name: str = Field(pattern=NAME)
    seed: int = Field(default=0, ge=0, lt=2**31)
    data: Data
    stages: dict[Annotated[str, Field(pattern=NAME)], Stage] = Field(min_length=1, max_length=200)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A field of a stage that names another stage's output.

    Attributes:
        path: Where it stands, for example "stages.dpo_00.gate.benchmark".
        text: What is written there.
        wants: Kind of output that is wanted.
    """

    path: str
    text: str
    wants: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A checked study.

    Attributes:
        study: The study.
        text: The YAML it was read from.
        order: Names of its stages in an order they can run in.
        needs: Names of the stages each stage waits for.
    """

    study: Study
    text: str
    order: tuple[str, ...]
    needs: Mapping[str, tuple[str, ...]]

    @property
    def sha256(self) -> str:
        """Hash of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def design_sha256(self) -> str:
        """Hash of what the study says, however it is written and wherever its data lies."""
        content = self.study.model_dump(mode="json", exclude={"data": {"uri"}})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parse_study(text: str) -> Plan:
    """Reads and checks a study.

    Raises:
        StudyError: With every fault that was found, by path.
    """
    study = _validate(_load_yaml(text))
    references = {name: list(stage_references(stage, f"stages.{name}")) for name, stage in study.stages.items()}
    faults = [fault for found in references.values() for fault in _check_references(found, study.stages)]
    if faults:
        raise StudyError(faults)
    needs = {name: tuple(dict.fromkeys(ref.text.partition(".")[0] for ref in found)) for name, found in references.items()}
    try:
        order = tuple(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        cycle: list[str] = error.args[1]
        name, needed = cycle[1], cycle[0]
        path = next(ref.path for ref in references[name] if ref.text.partition(".")[0] == needed)
        raise StudyError([(path, f"the stages wait for each other in a circle: {' -> '.join(cycle)}")]) from error
    return Plan(study=study, text=text, order=order, needs=needs)


def resolve(text: str, wants: str, stages: Mapping[str, Any]) -> tuple[str, str]:
    """Stage and output that a reference names.

    Args:
        text: "stage" or "stage.output".
        wants: Kind of output that is wanted.
        stages: The study's stages.

    Raises:
        KeyError: If there is none such; its argument says what would be right.
    """
    name, _, output = text.partition(".")
    if name not in stages:
        raise KeyError(f"there is no stage {name!r}{_did_you_mean(name, stages)}")
    stage = stages[name]
    outputs: dict[str, str] = stage.outputs
    fitting = [key for key, kind in outputs.items() if kind == wants]
    if not fitting:
        able = [key for key, other in stages.items() if wants in other.outputs.values()]
        raise KeyError(f"stage {name!r} of kind {stage.kind!r} gives no {wants}; stages that do: {', '.join(able) or 'none'}")
    if not output:
        if stage.default in fitting:
            return name, stage.default
        if len(fitting) == 1:
            return name, fitting[0]
        raise KeyError(f"stage {name!r} gives several {wants}; write one of {', '.join(f'{name}.{key}' for key in fitting)}")
    if output not in fitting:
        raise KeyError(f"stage {name!r} has no {wants} called {output!r}; write one of {', '.join(f'{name}.{key}' for key in fitting)}")
    return name, output


def stage_references(value: BaseModel, path: str) -> Iterator[Reference]:
    """All references of a stage, found by the `Ref` marks of its fields."""
    for name, field in type(value).model_fields.items():
        content, here = getattr(value, name), f"{path}.{name}"
        wants = _wanted(field.annotation, field.metadata)
        if isinstance(content, BaseModel):
            yield from stage_references(content, here)
        elif wants and isinstance(content, list):
            yield from (Reference(path=f"{here}[{index}]", text=text, wants=wants) for index, text in enumerate(content))
        elif wants and content is not None:
            yield Reference(path=here, text=content, wants=wants)


def _wanted(annotation: Any, metadata: Sequence[Any] = ()) -> str | None:
    for mark in metadata:
        if isinstance(mark, Ref):
            return mark.wants
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        return _wanted(typing.get_args(annotation)[0], typing.get_args(annotation)[1:])
    if origin in (list, typing.Union, types.UnionType):
        return next((wants for part in typing.get_args(annotation) if (wants := _wanted(part))), None)
    return None


def _check_references(references: Sequence[Reference], stages: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for reference in references:
        try:
            resolve(reference.text, reference.wants, stages)
        except KeyError as error:
            yield reference.path, error.args[0]


class _UniqueKeys(yaml.SafeLoader):
    """A loader that refuses a key that is written twice; YAML itself would silently take the last."""


def _unique_mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        # A key that is merged in from elsewhere ("<<") may be written again; that is what merging is for.
        if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key_node.value!r} is written twice", key_node.start_mark)
            seen.add(key_node.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)


def _load_yaml(text: str) -> Any:
    try:
        content = yaml.load(text, Loader=_UniqueKeys)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise StudyError([("study_yaml", f"not YAML{where}: {error.problem}")]) from error
    except yaml.YAMLError as error:
        raise StudyError([("study_yaml", f"not YAML: {error}")]) from error
    if not isinstance(content, dict):
        raise StudyError([("study_yaml", "a study is a mapping with the keys name, seed, data and stages")])
    return content


def _validate(content: dict[str, Any]) -> Study:
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        violations = [_violation(fault, content) for fault in error.errors(include_url=False)]
        # A key that is only misspelt is one fault, not a key too many and another one missing.
        meant = {
            f"{path.rpartition('.')[0]}.{text.split(_MEANT)[1].split(_QUOTE)[0]}".lstrip(".") for path, text in violations if _MEANT in text
        }
        raise StudyError([(path, text) for path, text in violations if text != "missing" or path not in meant]) from error


def _violation(fault: Any, content: dict[str, Any]) -> tuple[str, str]:
    location = list(fault["loc"])
    if len(location) >= 3 and location[0] == "stages" and fault["type"] not in ("union_tag_invalid", "union_tag_not_found"):
        # After the stage's name, pydantic puts the kind that it chose.
        location.pop(2)
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    if fault["type"] == "extra_forbidden":
        known = _fields_at(location[:-1], content)
        return path, f"no such key{_did_you_mean(str(location[-1]), known)}; known: {', '.join(known)}"
    if fault["type"] == "union_tag_invalid":
        kinds = [kind.strip(" '") for kind in fault["ctx"]["expected_tags"].split(",")]
        return f"{path}.kind", f"no such kind of stage{_did_you_mean(fault['ctx']['tag'], kinds)}; known: {', '.join(kinds)}"
    if fault["type"] == "union_tag_not_found":
        return f"{path}.kind", "missing; it says what the stage does"
    if fault["type"] == "missing":
        return path, "missing"
    return path, fault["msg"].removeprefix("Value error, ")


def _fields_at(location: Sequence[Any], content: dict[str, Any]) -> list[str]:
    model: type[BaseModel] | None = Study
    if location[:1] == ["stages"] and len(location) >= 2:
        kind = content["stages"][location[1]]["kind"]
        stages = typing.get_args(typing.get_args(Stage)[0])
        model = next(stage for stage in stages if typing.get_args(stage.model_fields["kind"].annotation) == (kind,))
        location = location[2:]
    for part in location:
        model = _model_in(model.model_fields[part].annotation) if model else None
    return list(model.model_fields) if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in typing.get_args(annotation) if (found := _model_in(part))), None)


def _did_you_mean(written: str, known: Mapping[str, Any] | Sequence[str]) -> str:
    close = difflib.get_close_matches(written, list(known), n=1, cutoff=0.6)
    return f"; {_MEANT}{close[0]}{_QUOTE}" if close else ""
