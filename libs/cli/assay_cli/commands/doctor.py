"""`assay doctor`."""

from __future__ import annotations

from dataclasses import asdict

import typer

from assay_cli.checks import all_checks
from assay_cli.commands.common import DEFAULT_DATA_DIR, AsJson, DataDir
from assay_cli.output import EXIT_FAILED, console, print_json


def doctor(as_json: AsJson = False, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Look at this machine and the stack: what works, what does not, and what to do about it.

    Exits 1 where something is wrong.

    Example: `assay doctor`
    """
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
