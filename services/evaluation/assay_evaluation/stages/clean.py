"""Sends the study's data through the cleaning service, over Kafka."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format

from assay.cleaning.v1 import cleaning_pb2
from assay.common.v1 import common_pb2
from assay.jobs.v1 import jobs_pb2
from assay_data.conversations import PreferencePair, prompt_key
from assay_data.errors import DataError
from assay_data.pairs import pair_to_dict, read_pairs, write_pairs
from assay_data.storage import exists, join_uri, write_json, write_jsonl
from assay_data.wire import to_proto
from assay_evaluation.findings import CATEGORIES
from assay_evaluation.planted import planted_truth
from assay_evaluation.refusals import RefusalWatch
from assay_evaluation.stage_kinds import Clean
from assay_evaluation.stages.context import StageContext
from assay_evaluation.work import Work
from assay_kit.errors import FailedPrecondition, InvalidArgument
from assay_kit.jobs import JobCancelled
from assay_kit.kafka import KafkaConnection, MessageTooLarge, Record, collect, end_offsets
from assay_kit.topics import DEAD_LETTERS, PREFERENCES_LABELLED, PREFERENCES_RAW, Topic

RUN_HEADER = "assay-run"
OPTIONS_HEADER = "assay-cleaning-options"
ACTIONS = ("keep", "flip", "drop")
TIMEOUT_SECONDS = 900.0


def run(context: StageContext, stage: Clean) -> dict[str, Any]:
    """Writes labelled.jsonl, kept.jsonl and flipped.jsonl, and counts."""
    pairs = _read(context)
    options = cleaning_pb2.CleaningOptions(min_flip_confidence=stage.min_flip_confidence)
    committee: Mapping[str, Any] | None = None
    if stage.committee:
        committee = _committee(context)
        options.committee_uri = committee["committee_uri"]
    labelled = _labelled_over_kafka(context, pairs, options)
    rows = [labelled[pair.id] for pair in pairs]
    labelled_uri, kept_uri, flipped_uri = (context.output(name) for name in ("labelled.jsonl", "kept.jsonl", "flipped.jsonl"))
    write_jsonl(labelled_uri, ({"pair": pair_to_dict(pair), **row} for pair, row in zip(pairs, rows, strict=True)))
    write_pairs(kept_uri, (pair for pair, row in zip(pairs, rows, strict=True) if row["action"] == "keep"))
    write_pairs(flipped_uri, (pair.turned_round() for pair, row in zip(pairs, rows, strict=True) if row["action"] == "flip"))
    figures = _figures(pairs, rows, committee)
    actions = figures["actions"]
    context.work.reporter.progress(
        context.work.name,
        len(pairs),
        len(pairs),
        unit="pairs",
        message=f"kept {actions['keep']:,}, turned {actions['flip']:,} round, dropped {actions['drop']:,}",
    )
    return {"artifacts": {"labelled": labelled_uri, "kept": kept_uri, "flipped": flipped_uri}, "figures": figures}


def _read(context: StageContext) -> list[PreferencePair]:
    data = context.plan.study.data
    try:
        pairs = list(read_pairs(data.uri, data.limit))
    except DataError as error:
        raise InvalidArgument("data.uri", str(error)) from error
    if not pairs:
        raise InvalidArgument("data.uri", f"{data.uri} holds no pairs")
    return pairs


def _committee(context: StageContext) -> dict[str, Any]:
    work, data = context.work, context.plan.study.data
    remote = work.tools.remote
    job_id = context.served_name(f"{work.name}-committee")

    def create() -> jobs_pb2.Job:
        return remote.cleaning.create_committee_job(
            data.uri, context.output("committee.json.gz"), seed=context.seed, limit=data.limit, job_id=job_id
        )

    def report(event: jobs_pb2.JobEvent) -> None:
        if event.HasField("progress"):
            told = event.progress
            work.reporter.progress(
                work.name, int(told.done), int(told.total), unit=told.unit, message=f"committee: {told.stage} {told.message}"
            )

    try:
        work.patiently(create)
        return remote.follow_job("cleaning", job_id, on_event=report, pause=work.pause)
    except JobCancelled:
        remote.cancel_job("cleaning", job_id)
        raise


def _labelled_over_kafka(
    context: StageContext, pairs: Sequence[PreferencePair], options: cleaning_pb2.CleaningOptions
) -> dict[str, dict[str, Any]]:
    work = context.work
    connection, producer = work.tools.connection, work.tools.producer
    if connection is None or producer is None:
        raise FailedPrecondition("cleaning goes through Kafka; set ASSAY_KAFKA_BOOTSTRAP")
    start, refused_start = _end(work, connection, PREFERENCES_LABELLED), _end(work, connection, DEAD_LETTERS)
    distinct = {pair.id: pair for pair in pairs}
    rows = {pair.id: row for row, pair in reversed(list(enumerate(pairs, start=1)))}
    if not exists(join_uri(work.memo, "sent.json")):
        headers = {RUN_HEADER: work.run_id, OPTIONS_HEADER: json_format.MessageToJson(options, indent=None)}
        for pair in distinct.values():
            try:
                producer.send(PREFERENCES_RAW, prompt_key(pair), to_proto(pair), headers=headers)
            except (MessageTooLarge, UnicodeEncodeError) as error:
                raise InvalidArgument("data.uri", f"the pair in row {rows[pair.id]} cannot be sent: {error}") from error
        producer.flush(120.0)
        write_json(join_uri(work.memo, "sent.json"), {"pairs": len(distinct)})
    found: dict[str, dict[str, Any]] = {}
    refusals = RefusalWatch(connection, PREFERENCES_RAW, start=refused_start, ours=lambda letter: _ours(letter, work.run_id, rows))

    def wanted(record: Record) -> bool:
        message = record.message
        if message is not None and record.headers.get(RUN_HEADER) == work.run_id and message.pair.id in distinct:
            found.setdefault(message.pair.id, _row(message))
            refusals.answered()
        return False

    def until() -> bool:
        work.reporter.progress(work.name, len(found), len(distinct), unit="pairs")
        refusals.check()
        return len(found) == len(distinct)

    try:
        collect(connection, PREFERENCES_LABELLED, start=start, wanted=wanted, until=until, timeout_s=TIMEOUT_SECONDS)
    except TimeoutError as error:
        missing = next(pair_id for pair_id in distinct if pair_id not in found)
        raise FailedPrecondition(
            f"{len(distinct) - len(found)} of {len(distinct)} pairs got no label within {TIMEOUT_SECONDS:g} s, "
            f"the first in row {rows[missing]}"
        ) from error
    return found


def _end(work: Work, connection: KafkaConnection, topic: Topic) -> dict[int, int]:
    """End of a topic before the first pair was sent, the same after a restart."""
    ends = work.once(f"end of {topic.name}", lambda: {str(number): offset for number, offset in end_offsets(connection, topic).items()})
    return {int(number): offset for number, offset in ends.items()}


def _ours(letter: common_pb2.DeadLetter, run_id: str, rows: Mapping[str, int]) -> str:
    if letter.headers.get(RUN_HEADER) != run_id:
        return ""
    pair = common_pb2.PreferencePair.FromString(letter.payload)
    return f"the pair in row {rows.get(pair.id, 0)} of the data"


def _row(message: cleaning_pb2.LabelledPair) -> dict[str, Any]:
    return {
        "category": cleaning_pb2.Category.Name(message.category).removeprefix("CATEGORY_").lower(),
        "action": cleaning_pb2.Action.Name(message.action).removeprefix("ACTION_").lower(),
        "confidence": round(message.confidence, 6),
        "evidence": [
            {
                "detector": one.detector,
                "category": cleaning_pb2.Category.Name(one.category).removeprefix("CATEGORY_").lower(),
                "score": round(one.score, 6),
                "threshold": round(one.threshold, 6),
                "explanation": one.explanation,
            }
            for one in message.evidence
        ],
        "policy_id": message.policy_id,
    }


def _figures(pairs: Sequence[PreferencePair], rows: Sequence[Mapping[str, Any]], committee: Mapping[str, Any] | None) -> dict[str, Any]:
    by_category = {category: dict.fromkeys(ACTIONS, 0) for category in CATEGORIES}
    for row in rows:
        by_category[row["category"]][row["action"]] += 1
    return {
        "rows_in": len(pairs),
        "categories": {category: sum(actions.values()) for category, actions in by_category.items()},
        "actions": {action: sum(actions[action] for actions in by_category.values()) for action in ACTIONS},
        "category_actions": by_category,
        "planted": planted_truth(pairs, rows),
        "committee": {key: value for key, value in (committee or {}).items() if not key.endswith("_uri")} or None,
        "policy_id": rows[0]["policy_id"],
    }
