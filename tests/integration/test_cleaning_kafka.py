import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf import json_format
from support.cleaning_service import CleaningStubs, cleaning_service, result_of

from assay.cleaning.v1 import cleaning_pb2
from assay.common.v1 import common_pb2
from assay.jobs.v1 import jobs_pb2
from assay_cleaning.committee import fit_committee
from assay_cleaning.labelling import has_direction
from assay_cleaning.worker import OPTIONS_HEADER, RUN_HEADER
from assay_data.conversations import prompt_key
from assay_data.generated import generate_pairs
from assay_data.pairs import write_pairs
from assay_data.wire import to_proto
from assay_kit.kafka import EventProducer, KafkaConnection, Record, collect, end_offsets, ensure_topics
from assay_kit.topics import (
    DEAD_LETTERS,
    JOBS_EVENTS,
    JOBS_REQUESTED,
    PREFERENCES_CLEAN,
    PREFERENCES_LABELLED,
    PREFERENCES_RAW,
    Topic,
)

PAIRS = generate_pairs(300, seed=31)


@pytest.fixture(scope="module")
def connection(kafka_bootstrap: str) -> KafkaConnection:
    connection = KafkaConnection(kafka_bootstrap)
    ensure_topics(connection)
    return connection


@pytest.fixture(scope="module")
def committee_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    uri = str(tmp_path_factory.mktemp("committee") / "committee.json.gz")
    fit_committee([pair for pair in PAIRS if has_direction(pair)]).save(uri)
    return uri


@pytest_asyncio.fixture
async def stubs(tmp_path: Path, kafka_bootstrap: str, connection: KafkaConnection) -> AsyncIterator[CleaningStubs]:
    async with cleaning_service(tmp_path / "state", kafka_bootstrap=kafka_bootstrap) as stubs:
        yield stubs


def send(connection: KafkaConnection, messages: Sequence[common_pb2.PreferencePair], headers: Mapping[str, str]) -> None:
    producer = EventProducer(connection, "test")
    try:
        for message in messages:
            producer.send(PREFERENCES_RAW, "key", message, headers=headers)
        producer.flush()
    finally:
        producer.close()


async def gathered(
    connection: KafkaConnection, topic: Topic, start: Mapping[int, int], count: int, ours: Callable[[Record], bool]
) -> list[Record]:
    found: list[Record] = []

    def wanted(record: Record) -> bool:
        if ours(record):
            found.append(record)
        return False

    await asyncio.to_thread(collect, connection, topic, start=start, wanted=wanted, until=lambda: len(found) >= count, timeout_s=90)
    return found


def headers(run: str, **options: object) -> dict[str, str]:
    return {RUN_HEADER: run, OPTIONS_HEADER: json_format.MessageToJson(cleaning_pb2.CleaningOptions(**options), indent=None)}


async def test_the_kafka_door_gives_the_labels_of_the_grpc_door_and_passes_on_what_is_clean(
    stubs: CleaningStubs, connection: KafkaConnection, committee_uri: str
) -> None:
    run = uuid.uuid4().hex
    starts = {topic.name: end_offsets(connection, topic) for topic in (PREFERENCES_LABELLED, PREFERENCES_CLEAN)}
    await asyncio.to_thread(send, connection, [to_proto(pair) for pair in PAIRS], headers(run, committee_uri=committee_uri))

    def ours(record: Record) -> bool:
        return record.headers.get(RUN_HEADER) == run

    labelled = await gathered(connection, PREFERENCES_LABELLED, starts[PREFERENCES_LABELLED.name], len(PAIRS), ours)
    direct = {result.labelled.pair.id: result.labelled for result in await stubs.label(PAIRS, committee_uri=committee_uri)}
    assert {record.message.pair.id: record.message for record in labelled} == direct
    assert len(labelled) == len(PAIRS)
    keys = {pair.id: prompt_key(pair).encode() for pair in PAIRS}
    assert all(record.key == keys[record.message.pair.id] for record in labelled)

    by_id = {pair.id: pair for pair in PAIRS}
    wanted = {
        (by_id[one.pair.id].turned_round() if one.action == cleaning_pb2.ACTION_FLIP else by_id[one.pair.id]).id
        for one in direct.values()
        if one.action != cleaning_pb2.ACTION_DROP
    }
    clean = await gathered(connection, PREFERENCES_CLEAN, starts[PREFERENCES_CLEAN.name], len(wanted), ours)
    assert len(clean) == len(wanted) < len(PAIRS)
    assert {record.message.id for record in clean} == wanted
    assert any(one.action == cleaning_pb2.ACTION_FLIP for one in direct.values())


async def test_what_cannot_be_labelled_goes_to_the_dead_letters_with_the_reason(
    stubs: CleaningStubs, connection: KafkaConnection, tmp_path: Path
) -> None:
    run = uuid.uuid4().hex
    good = to_proto(PAIRS[0])
    no_role = common_pb2.PreferencePair(prompt=[common_pb2.Message(content=run)], chosen="a", rejected="b")
    start = {topic.name: end_offsets(connection, topic) for topic in (DEAD_LETTERS, PREFERENCES_LABELLED)}
    await asyncio.to_thread(send, connection, [no_role, good], headers(run))
    await asyncio.to_thread(send, connection, [good], {RUN_HEADER: run, OPTIONS_HEADER: '{"no_such": 1}'})
    await asyncio.to_thread(send, connection, [good], headers(run, committee_uri=str(tmp_path / "none")))
    letters = await gathered(
        connection, DEAD_LETTERS, start[DEAD_LETTERS.name], 3, lambda record: record.message.headers.get(RUN_HEADER) == run
    )
    reasons = sorted(record.message.error for record in letters)
    assert reasons[0].startswith(f"header {OPTIONS_HEADER}: not CleaningOptions")
    assert reasons[1].startswith(f"header {OPTIONS_HEADER}: options.committee_uri:") and "no such file" in reasons[1]
    assert reasons[2].startswith("prompt[0].role:")
    assert {record.message.topic for record in letters} == {PREFERENCES_RAW.name}
    labelled = await gathered(
        connection, PREFERENCES_LABELLED, start[PREFERENCES_LABELLED.name], 1, lambda record: record.headers.get(RUN_HEADER) == run
    )
    assert [record.message.pair.id for record in labelled] == [PAIRS[0].id]


async def test_a_job_asked_for_over_kafka_is_done_and_its_events_are_told(
    stubs: CleaningStubs, connection: KafkaConnection, tmp_path: Path
) -> None:
    job_id = f"clean-{uuid.uuid4().hex}"
    write_pairs(str(tmp_path / "in.jsonl"), PAIRS)
    job = jobs_pb2.Job(id=job_id, service="cleaning", kind="clean")
    job.spec.update({"input_uri": str(tmp_path / "in.jsonl"), "output_uri": str(tmp_path / "out"), "limit": 60})
    start = end_offsets(connection, JOBS_EVENTS)
    producer = EventProducer(connection, "test")
    await asyncio.to_thread(producer.send, JOBS_REQUESTED, job_id, job)
    await asyncio.to_thread(producer.close)
    ended = jobs_pb2.JOB_STATE_SUCCEEDED, jobs_pb2.JOB_STATE_FAILED
    (last,) = await gathered(
        connection, JOBS_EVENTS, start, 1, lambda record: record.message.job_id == job_id and record.message.state in ended
    )
    assert last.message.state == jobs_pb2.JOB_STATE_SUCCEEDED, last.message.error
    assert result_of(await stubs.ended(job_id))["rows_in"] == 60
