"""A study while it runs: each stage with what it has done, its rate and its time left; a line a change where nobody looks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from assay.evaluation.v1.evaluation_pb2 import StudyStage
from assay.jobs.v1 import jobs_pb2

_MARKS = {
    jobs_pb2.JOB_STATE_QUEUED: ("·", "dim"),
    jobs_pb2.JOB_STATE_RUNNING: ("▶", "cyan"),
    jobs_pb2.JOB_STATE_SUCCEEDED: ("✓", "green"),
    jobs_pb2.JOB_STATE_FAILED: ("✗", "red"),
    jobs_pb2.JOB_STATE_CANCELLED: ("–", "yellow"),
}
_ENDED = {jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED, jobs_pb2.JOB_STATE_CANCELLED}


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.speed
        if not speed or task.finished:
            return Text("", style="dim")
        return Text(f"{speed:,.1f} {task.fields['unit']}/s" if speed < 100 else f"{speed:,.0f} {task.fields['unit']}/s", style="dim")


class _Count(ProgressColumn):
    def render(self, task: Task) -> Text:
        if not task.total or task.fields["unit"] == "":
            return Text("")
        return Text(f"{int(task.completed):,}/{int(task.total):,}", style="dim")


class StudyView:
    """Shows the stages of a study as they go; a context manager. Works the same on a terminal and in a log."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, jobs_pb2.JobState.ValueType] = {}
        self._tasks: dict[str, TaskID] = {}
        self._began = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.fields[mark]}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Count(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[message]}", justify="left"),
            console=console,
            transient=False,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> StudyView:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def update(self, stages: Sequence[StudyStage]) -> list[str]:
        """Shows the stages as they are now; returns the names of those that have just succeeded."""
        fresh = []
        for stage in stages:
            before = self._states.get(stage.name, jobs_pb2.JOB_STATE_QUEUED)
            self._states[stage.name] = stage.state
            if self._progress.disable:
                self._say(stage, before)
            else:
                self._draw(stage, before)
            if stage.state == jobs_pb2.JOB_STATE_SUCCEEDED and before != stage.state:
                fresh.append(stage.name)
        return fresh

    def _draw(self, stage: StudyStage, before: jobs_pb2.JobState.ValueType) -> None:
        mark, style = _MARKS.get(stage.state, ("·", "dim"))
        if stage.name not in self._tasks:
            self._tasks[stage.name] = self._progress.add_task(stage.name, start=False, total=None, mark="[dim]·[/]", message="", unit="")
        task = self._tasks[stage.name]
        if stage.state == jobs_pb2.JOB_STATE_RUNNING and before != jobs_pb2.JOB_STATE_RUNNING:
            self._progress.start_task(task)
        done, total = float(stage.progress.done), float(stage.progress.total)
        if stage.state == jobs_pb2.JOB_STATE_SUCCEEDED:
            done = total = total or 1.0
        elif stage.state == jobs_pb2.JOB_STATE_RUNNING and not total:
            done = 0.0
        self._progress.update(
            task,
            completed=done,
            total=total or (None if stage.state == jobs_pb2.JOB_STATE_RUNNING else 1.0),
            mark=f"[{style}]{mark}[/]",
            message=stage.progress.message if stage.state == jobs_pb2.JOB_STATE_RUNNING else "",
            unit=stage.progress.unit,
        )
        if stage.state in _ENDED and before not in _ENDED:
            self._progress.stop_task(task)

    def _say(self, stage: StudyStage, before: jobs_pb2.JobState.ValueType) -> None:
        if stage.state == before:
            return
        if stage.state in _ENDED - {jobs_pb2.JOB_STATE_SUCCEEDED} and not stage.progress.stage:
            return  # it has not begun: what it waits for has failed
        mark, _ = _MARKS.get(stage.state, ("·", "dim"))
        took = f" in {stage.seconds:.0f} s" if stage.state == jobs_pb2.JOB_STATE_SUCCEEDED else ""
        self._console.print(f"[{time.monotonic() - self._began:6.1f} s] {mark} {stage.name} ({stage.kind}){took}", markup=False)
