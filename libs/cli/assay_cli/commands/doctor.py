"""`assay doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from assay_cli.checks import all_checks
from assay_cli.cluster_checks import Release, check_release
from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir
from assay_cli.kubectl import Kubectl
from assay_cli.output import EXIT_FAILED, console, print_json, print_table

_PANEL = "An installed release"
Cluster = Annotated[bool, typer.Option("--cluster", help="Look at a release in Kubernetes, through kubectl.", rich_help_panel=_PANEL)]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Where it is.", rich_help_panel=_PANEL)]
ReleaseName = Annotated[str, typer.Option("--release", help="Its name.", rich_help_panel=_PANEL)]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig, if not the current one.", rich_help_panel=_PANEL)]
Prometheus = Annotated[str, typer.Option("--prometheus", help="URL of the Prometheus that should scrape it.", rich_help_panel=_PANEL)]
Outside = Annotated[bool, typer.Option("--outside", help="Ask no pod, which needs the right to exec.", rich_help_panel=_PANEL)]


def doctor(
    as_json: AsJson = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    cluster: Cluster = False,
    namespace: Namespace = "assay",
    release: ReleaseName = "assay",
    context: Context = "",
    prometheus: Prometheus = "",
    outside: Outside = False,
) -> None:
    """Look at this machine and the stack, or at a release in a cluster: what works, what does not, and what to do about it.

    Exits 1 where something is wrong.

    Example: `assay doctor`, `assay doctor --cluster --namespace assay --release assay`
    """
    if cluster:
        _cluster(
            Release(kubectl=Kubectl(namespace=namespace, context=context), name=release, prometheus=prometheus, inside=not outside), as_json
        )
        return
    findings = all_checks(data_dir)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            console.print(
                f"{'✓' if finding.good else '✗'} {finding.what}: {finding.found}", markup=False, style="" if finding.good else "red"
            )
            if not finding.good:
                console.print(f"    {finding.remedy}", markup=False)
    if not all(finding.good for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def _cluster(release: Release, as_json: bool) -> None:
    findings = check_release(release)
    good = all(finding.good for finding in findings)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [("✓" if one.good else "✗", one.what, one.found, "" if one.good else one.remedy) for one in findings]
        print_table(f"Release {release.name} in {release.kubectl.namespace}", ("", "what", "found", "what to do"), rows)
    if not good:
        raise typer.Exit(EXIT_FAILED)
