"""The demo: the whole line on preference pairs, from a stack of its own to the report, and nothing left running."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from assay_cli.output import console, print_table
from assay_cli.stack import LocalStack
from assay_cli.study_run import follow_study, study_file, with_data
from assay_client.client import AssayClient
from assay_client.endpoints import Endpoints
from assay_client.messages import plain
from assay_data.errors import DataError, HubUnavailable
from assay_data.generated import generate_pairs
from assay_data.hub import hub_files
from assay_data.pairs import read_pairs, write_pairs
from assay_data.storage import is_local, path_of

HUB_DATA = "Anthropic/hh-rlhf"
GENERATED_PAIRS = 2400
PATIENCE_SECONDS = 180.0
JOB_ID = "demo"
SPEED = {"ASSAY_TRAINING_CONCURRENCY": "3"}
"""The three reward models train side by side, so that none is left to train alone on two cores."""


@dataclass(frozen=True, kw_only=True)
class DemoData:
    """What the demo runs on."""

    uri: str
    name: str
    limit: int = 0


def choose_data(uri: str | None, out: Path) -> DemoData:
    """The given data; else HH-RLHF where a hub answers quickly; else the generated set, written under `out`."""
    if uri:
        if is_local(uri) and path_of(uri).exists():
            uri = str(path_of(uri).resolve())
        return DemoData(uri=uri, name=uri.rstrip("/").rpartition("/")[2])
    try:
        hub_files(f"{HUB_DATA}/harmless-base/test.jsonl.gz")
        return DemoData(uri=f"{HUB_DATA}/harmless-base/test.jsonl.gz", name=HUB_DATA)
    except HubUnavailable:
        target = (out / "generated.jsonl").resolve()
        write_pairs(str(target), generate_pairs(GENERATED_PAIRS, seed=0))
        return DemoData(uri=str(target), name="generated (planted categories, flips and gold)")


def demo_study(data: DemoData, study: Path | None = None) -> str:
    """The demo's study, or another of its shape, as YAML on the given data."""
    source = study or resources.files("assay_cli").joinpath("studies/demo.yaml")
    return with_data(study_file(source), {"uri": data.uri, "name": data.name, "limit": data.limit}, source=str(source))


def run_demo(*, data: str | None, out: Path, resume: bool, study: Path | None = None) -> Path:
    """Runs the demo and returns the path of report.json; what a former demo left in `out` is removed unless it is resumed.

    Args:
        data: pairs as a file, a folder or a hub id; None lets the demo choose.
        out: folder for the report; the stack's own state is in `out/state`.
        resume: go on with an interrupted demo instead of starting anew.
        study: another study of the same shape instead of the demo's own.

    Raises:
        DataError: the data is not there or not what it says, or the study has no report.
        StackError: another demo runs on `out`.
        JobFailed: a stage failed; the message names it.
    """
    began = time.monotonic()
    state = out / "state"
    chosen = choose_data(data, out)
    for _ in read_pairs(chosen.uri, limit=1):
        break
    text = demo_study(chosen, study)
    out.mkdir(parents=True, exist_ok=True)
    console.print(f"Data: {chosen.name} ({chosen.uri})", markup=False, soft_wrap=True)
    with LocalStack(state, extra_env=SPEED, afresh=not resume) as stack:
        if not resume:
            shutil.rmtree(out / "study", ignore_errors=True)
        for name in ("report.html", "report.json"):
            (out / name).unlink(missing_ok=True)
        console.print(
            f"The stack is up after {time.monotonic() - began:.0f} s: Kafka at {stack.kafka_bootstrap}, logs in {state / 'logs'}",
            soft_wrap=True,
        )
        with AssayClient(Endpoints.from_folder(state), patience_s=PATIENCE_SECONDS) as client:
            if not any(stage.kind == "report" for stage in client.evaluation.validate_study(text).stages):
                raise DataError(str(study), 0, "stages", "none is of kind report; the demo ends with one")
            job = client.evaluation.create_study_job(text, str((out / "study").resolve()), job_id=JOB_ID)
            follow_study(client, job.id, on_stage=_show_stage)
            result = plain(client.jobs("evaluation").get(job.id).result)
    for key, name in (("report_html_uri", "report.html"), ("report_json_uri", "report.json")):
        shutil.copyfile(path_of(result[key]), out / name)
    report = json.loads((out / "report.json").read_text())
    print_report(report)
    console.print(f"\nReport: {out / 'report.html'} and {out / 'report.json'}; {time.monotonic() - began:.0f} s in all", soft_wrap=True)
    return out / "report.json"


def _show_stage(name: str, kind: str, result: dict[str, Any]) -> None:
    """What cleaning found, as soon as it is known."""
    if kind == "clean":
        print_cleaning(result["figures"])


def print_cleaning(cleaning: dict[str, Any]) -> None:
    """Prints how many pairs are of each category and what is done with them."""
    rows_in = int(cleaning["rows_in"])
    rows = [
        [category.capitalize(), int(count), f"{count / max(rows_in, 1):.1%}"]
        for category, count in sorted(cleaning["categories"].items(), key=lambda item: -item[1])
    ]
    actions = ", ".join(f"{int(count):,} {action.lower()}" for action, count in cleaning["actions"].items())
    print_table(f"What cleaning found in {rows_in:,} pairs ({actions})", ["category", "pairs", "share"], rows)


def print_report(report: dict[str, Any]) -> None:
    """Prints the leaderboards and the findings of a study's report."""
    models = sorted(report["reward_models"], key=lambda model: -model["accuracy"])
    print_table(
        "Reward models on held-out pairs",
        ["reward model", "labels flipped", "accuracy", "95 % interval", "n"],
        [[m["name"], f"{m['label_flip_rate']:.0%}", m["accuracy"], _interval(m["accuracy_interval"]), m["n"]] for m in models],
    )
    policies = sorted(report["policies"], key=lambda policy: -policy["gold_mean"])
    print_table(
        "Policies by the gold judge on held-out prompts",
        ["algorithm", "reward model", "gold", "95 % interval", "KL (nats)", "n"],
        [
            [
                p["algorithm"],
                p["reward_model"] or "–",
                p["gold_mean"],
                _interval(p["gold_interval"]),
                "–" if p["kl"] is None else p["kl"],
                p["n"],
            ]
            for p in policies
        ],
    )
    for finding in report["findings"]:
        console.print(f"• {finding}", markup=False, soft_wrap=True)


def _or_dash(value: float | None) -> float | str:
    return "–" if value is None else value


def _interval(bounds: list[float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"
