"""The event log: what happened to each job, in order, kept in the jobs' own database."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from assay.jobs.v1 import jobs_pb2

TERMINAL = frozenset({jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED})


def database_url(data_dir: Path, url: str) -> str:
    """SQLAlchemy's URL of the jobs' database: `url` where there is one, else SQLite in `data_dir`, which is made."""
    if url:
        return postgres_url(url)
    data_dir.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(data_dir / 'jobs.sqlite').resolve()}"


def postgres_url(url: str) -> str:
    """SQLAlchemy's URL of a postgresql://… URL."""
    return sa.make_url(url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


def schema_of(service: str) -> str:
    """Schema of a service's jobs."""
    return f"assay_{service}"


def advisory_key(name: str) -> int:
    """The number by which PostgreSQL knows an advisory lock of that name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The last words of the log about one job."""

    first_at_ns: int
    """When the job was accepted, in nanoseconds since 1970."""
    last: jobs_pb2.JobEvent
    """The newest event."""
    progress: jobs_pb2.JobProgress | None
    """The newest progress, where there was any."""
    result: dict[str, Any] | None
    """What came out of a job that SUCCEEDED."""
    started: bool
    """Whether it ever ran."""


class EventLog:
    """Events of jobs with sequence numbers 0, 1, 2 … within the job. Nothing follows an event with which a job ends."""

    def __init__(self, *, url: str, schema: str, keep_unpublished: bool) -> None:
        """Opens the log and makes its table.

        Args:
            url: SQLAlchemy URL of the database.
            schema: PostgreSQL schema; not used on SQLite.
            keep_unpublished: whether events wait for `unpublished` to be read and `mark_published`.
        """
        self._keep_unpublished = keep_unpublished
        sqlite = url.startswith("sqlite")
        self.engine = sa.create_engine(url, pool_pre_ping=not sqlite)
        if sqlite:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
        metadata = sa.MetaData(schema=None if sqlite else schema)
        self._table = sa.Table(
            "assay_job_events",
            metadata,
            sa.Column("job_id", sa.String(256), primary_key=True),
            sa.Column("sequence", sa.BigInteger, primary_key=True),
            sa.Column("kind", sa.String(256), nullable=False),
            sa.Column("state", sa.Integer, nullable=False),
            sa.Column("is_progress", sa.Boolean, nullable=False),
            sa.Column("at_ns", sa.BigInteger, nullable=False, index=True),
            sa.Column("published", sa.Boolean, nullable=False, index=True),
            sa.Column("event", sa.LargeBinary, nullable=False),
            sa.Column("result", sa.Text),
        )
        self._order = None if sqlite else sa.Sequence("assay_job_order", metadata=metadata, schema=schema)
        with self.engine.begin() as connection:
            if not sqlite:
                # One process at a time makes what is missing; one that finds all needs no right to make anything.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(advisory_key(f"assay-jobs-schema-{schema}"))))
                if not sa.inspect(connection).has_schema(schema):
                    connection.execute(sa.schema.CreateSchema(schema))
            metadata.create_all(connection)
        self._accepted = self.count() if sqlite else 0
        self._listeners: dict[str, set[Callable[[], None]]] = {}
        self._lock = threading.Lock()
        self.appended = threading.Event()
        """Set after each append; the publisher waits for it."""

    def append(self, event: jobs_pb2.JobEvent, *, result: dict[str, Any] | None = None, first: bool = False) -> bool:
        """Writes an event under the next sequence number.

        Args:
            event: the event; its sequence and time are set here.
            result: what came out, with an event that says SUCCEEDED.
            first: write only where the job has no event yet.

        Returns:
            Whether it was written: not after an event with which the job ended.
        """
        table = self._table
        newest = sa.select(table.c.sequence, table.c.state).where(table.c.job_id == event.job_id).order_by(table.c.sequence.desc()).limit(1)
        while True:
            try:
                with self.engine.begin() as connection:
                    row = connection.execute(newest).first()
                    if row is not None and (first or row.state in TERMINAL):
                        return False
                    event.sequence = 0 if row is None else row.sequence + 1
                    now = time.time_ns()
                    event.at.FromNanoseconds(now)
                    connection.execute(
                        sa.insert(table).values(
                            job_id=event.job_id,
                            sequence=event.sequence,
                            kind=event.kind,
                            state=event.state,
                            is_progress=event.HasField("progress"),
                            at_ns=now,
                            published=not self._keep_unpublished,
                            event=event.SerializeToString(),
                            result=None if result is None else json.dumps(result),
                        )
                    )
                break
            except sa.exc.IntegrityError:
                continue  # somebody else took the number; read again
        self._tell(event.job_id)
        return True

    def read(self, job_id: str, from_sequence: int = 0, limit: int = 1000) -> list[jobs_pb2.JobEvent]:
        """Events of a job in order, from a sequence number on."""
        table = self._table
        query = (
            sa.select(table.c.event)
            .where(table.c.job_id == job_id, table.c.sequence >= from_sequence)
            .order_by(table.c.sequence)
            .limit(limit)
        )
        with self.engine.connect() as connection:
            return [jobs_pb2.JobEvent.FromString(row.event) for row in connection.execute(query)]

    def standings(self, job_ids: Sequence[str]) -> dict[str, Standing]:
        """The last words about each of these jobs; a job without events is left out."""
        table = self._table
        keys = sa.select(
            table.c.job_id,
            sa.func.min(table.c.at_ns).label("first_at_ns"),
            sa.func.max(table.c.sequence).label("last"),
            sa.func.max(sa.case((table.c.is_progress, table.c.sequence))).label("progress"),
            sa.func.max(sa.case((table.c.state == jobs_pb2.JOB_STATE_RUNNING, 1), else_=0)).label("started"),
        )
        keys = keys.where(table.c.job_id.in_(job_ids)).group_by(table.c.job_id)
        found = keys.subquery()
        query = sa.select(
            table.c.job_id,
            table.c.sequence,
            table.c.event,
            table.c.result,
            found.c.first_at_ns,
            found.c.last,
            found.c.progress,
            found.c.started,
        )
        query = query.join(found, sa.and_(table.c.job_id == found.c.job_id, table.c.sequence.in_([found.c.last, found.c.progress])))
        rows: dict[str, list[Any]] = {}
        with self.engine.connect() as connection:
            for row in connection.execute(query):
                rows.setdefault(row.job_id, []).append(row)
        return {job_id: _standing(of_job) for job_id, of_job in rows.items()}

    def standing(self, job_id: str) -> Standing | None:
        """The last words about one job."""
        return self.standings([job_id]).get(job_id)

    def accepted(self, *, before: tuple[int, str] | None, kind: str, limit: int) -> list[tuple[int, str]]:
        """When jobs were accepted (nanoseconds since 1970) and their ids, newest first.

        Args:
            before: leave out this one and all newer ones; None: begin with the newest.
            kind: only this; empty means all.
            limit: at most so many.
        """
        table = self._table
        query = sa.select(table.c.at_ns, table.c.job_id).where(table.c.sequence == 0)
        if before is not None:
            query = query.where(sa.tuple_(table.c.at_ns, table.c.job_id) < before)
        if kind:
            query = query.where(table.c.kind == kind)
        query = query.order_by(table.c.at_ns.desc(), table.c.job_id.desc()).limit(limit)
        with self.engine.connect() as connection:
            return [(row.at_ns, row.job_id) for row in connection.execute(query)]

    def count(self) -> int:
        """How many jobs there are."""
        table = self._table
        with self.engine.connect() as connection:
            return connection.execute(sa.select(sa.func.count()).where(table.c.sequence == 0)).scalar_one()

    def next_order(self) -> int:
        """A number larger than that of every job before, whichever process accepted it; to be asked for by one thread at a time."""
        if self._order is not None:
            with self.engine.begin() as connection:
                return int(connection.execute(sa.select(self._order.next_value())).scalar_one())
        self._accepted += 1
        return self._accepted

    @contextlib.contextmanager
    def publishing(self) -> Iterator[bool]:
        """Whether this process may publish while open: one at a time does, so that events keep their order."""
        if self.engine.dialect.name == "sqlite":
            yield True
            return
        with self.engine.begin() as connection:
            key = advisory_key(f"assay-jobs-publishing-{self._table.schema}")
            yield bool(connection.execute(sa.select(sa.func.pg_try_advisory_xact_lock(key))).scalar())

    def unpublished(self, limit: int = 100) -> list[jobs_pb2.JobEvent]:
        """The oldest events that were not marked as published."""
        table = self._table
        query = (
            sa.select(table.c.event)
            .where(sa.not_(table.c.published))
            .order_by(table.c.at_ns, table.c.job_id, table.c.sequence)
            .limit(limit)
        )
        with self.engine.connect() as connection:
            return [jobs_pb2.JobEvent.FromString(row.event) for row in connection.execute(query)]

    def mark_published(self, events: Sequence[jobs_pb2.JobEvent]) -> None:
        """Says that these events need not be published again."""
        table = self._table
        with self.engine.begin() as connection:
            for event in events:
                connection.execute(
                    sa.update(table).where(table.c.job_id == event.job_id, table.c.sequence == event.sequence).values(published=True)
                )

    @contextlib.contextmanager
    def listening(self, job_id: str, tell: Callable[[], None]) -> Iterator[None]:
        """While open, `tell` is called after each event of the job that this process writes; it must return at once."""
        with self._lock:
            self._listeners.setdefault(job_id, set()).add(tell)
        try:
            yield
        finally:
            with self._lock:
                self._listeners[job_id].discard(tell)
                if not self._listeners[job_id]:
                    del self._listeners[job_id]

    def close(self) -> None:
        """Gives the connections back."""
        self.engine.dispose()

    def _tell(self, job_id: str) -> None:
        self.appended.set()
        with self._lock:
            listeners = list(self._listeners.get(job_id, ()))
        for tell in listeners:
            tell()


def _standing(rows: Sequence[Any]) -> Standing:
    by_sequence = {row.sequence: row for row in rows}
    head = rows[0]
    last = by_sequence[head.last]
    progress = None if head.progress is None else jobs_pb2.JobEvent.FromString(by_sequence[head.progress].event).progress
    result = None if last.result is None else json.loads(last.result)
    return Standing(
        first_at_ns=head.first_at_ns,
        last=jobs_pb2.JobEvent.FromString(last.event),
        progress=progress,
        result=result,
        started=bool(head.started),
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA journal_mode=WAL")
