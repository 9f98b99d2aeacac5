"""Makes the jobs' schemas: `python -m assay_kit.jobs.migrate [--role ROLE] [SERVICE …]`.

A service makes its own at the start, and several that start at once wait for each other; this is for services whose user may make
nothing. It runs as a user who may, before them, with ASSAY_DATABASE_URL, and again after each upgrade; what is there already stays.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import sqlalchemy as sa
from dbos import DBOS

from assay_kit.jobs.log import EventLog, postgres_url, schema_of

SERVICES = ("cleaning", "training", "evaluation")
"""Services that have jobs."""


def migrate(url: str, service: str, role: str = "") -> None:
    """Makes or renews the tables of one service's jobs.

    Args:
        url: postgresql://… of a user who may make a schema.
        service: one of `SERVICES`.
        role: user of the service, who is given the right to read and write them; empty: nobody else.
    """
    schema = schema_of(service)
    EventLog(url=postgres_url(url), schema=schema, keep_unpublished=False).close()
    DBOS.migrate(postgres_url(url), schema=schema, application_role=role or None)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 done, 2 wrong usage, 3 the database refuses or does not answer."""
    parser = argparse.ArgumentParser(prog="python -m assay_kit.jobs.migrate", description="Make the schemas of the services' jobs.")
    parser.add_argument("services", nargs="*", metavar="SERVICE", help=f"of {', '.join(SERVICES)}; all by default")
    parser.add_argument("--role", default="", help="user of the services, who may read and write what is made")
    asked = parser.parse_args(argv)
    url = os.environ.get("ASSAY_DATABASE_URL", "")
    if not url:
        parser.error("no database: set ASSAY_DATABASE_URL=postgresql://…")
    for service in asked.services:
        if service not in SERVICES:
            parser.error(f"{service} has no jobs; {', '.join(SERVICES)} have")
    for service in asked.services or SERVICES:
        try:
            migrate(url, service, asked.role)
        except sa.exc.SQLAlchemyError as error:
            print(f"{service}: {str(getattr(error, 'orig', None) or error).strip()}", file=sys.stderr)
            return 3
        print(f"{service}: {schema_of(service)} is there")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
