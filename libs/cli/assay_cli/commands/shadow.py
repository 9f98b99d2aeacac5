"""`assay models shadow`."""

from __future__ import annotations

from typing import Annotated

import typer

from assay.common.v1 import common_pb2
from assay.reward.v1 import reward_pb2
from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir, connect
from assay_cli.output import console, print_json, print_table


def shadow(
    model: Annotated[str, typer.Argument(help="Model whose calls the candidate scores besides.")],
    candidate: Annotated[str, typer.Option(help="Begin with this loaded model as the candidate.")] = "",
    share: Annotated[float, typer.Option(help="Share of the calls that the candidate scores too.")] = 1.0,
    end: Annotated[bool, typer.Option("--end", help="End it, and show the last report.")] = False,
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Compare a candidate with a reward model on the model's own calls, before an alias moves; without options, show the report.

    Example: `assay models shadow my-rm --candidate my-rm-2`
    """
    if candidate and end:
        raise typer.BadParameter("--candidate begins and --end ends; one of them is wanted")
    with connect(data_dir) as client:
        if candidate:
            report = client.reward.set_shadow(model, candidate, share=share).current
        elif end:
            report = client.reward.set_shadow(model, "").previous
        else:
            report = client.reward.get_shadow(model)
    if as_json:
        print_json(report)
        return
    if end and not report.candidate.model:
        console.print(f"{model} had no shadow")
        return
    _show(report)


def _show(report: reward_pb2.ShadowReport) -> None:
    rows = [
        ["pairs turned round", _told(report, "flip_rate"), "pairs"],
        ["rank correlation", _told(report, "rank_correlation"), "answers"],
        ["difference, standardised", _told(report, "standardized_difference"), "answers"],
        ["same best of n", _told(report, "best_agreement"), "conversations"],
    ]
    names = f"{report.candidate.model} {report.candidate.revision} beside {report.model.model} {report.model.revision}"
    print_table(names, ["figure", "value [95 % interval]", "n counts"], rows)
    console.print(
        f"{report.calls_compared} of {report.calls_seen} calls compared, {report.calls_skipped} given up for want of room, "
        f"{report.calls_failed} failed{': ' + report.last_failure if report.last_failure else ''}"
    )


def _told(report: reward_pb2.ShadowReport, name: str) -> str:
    if not report.HasField(name):  # type: ignore[arg-type]
        return "–"
    estimate: common_pb2.Estimate = getattr(report, name)
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}] n={estimate.n}"
