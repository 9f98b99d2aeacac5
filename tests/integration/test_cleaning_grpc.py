import asyncio
import gzip
import os
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from support.cleaning_service import CleaningStubs, cleaning_service, result_of
from support.object_store import bucket

from assay.cleaning.v1 import cleaning_pb2
from assay.common.v1 import common_pb2
from assay.jobs.v1 import jobs_pb2
from assay_cleaning.labelling import LONGEST_TEXT
from assay_cleaning.outputs import rebuild_input
from assay_data import storage
from assay_data.conversations import Message, PreferencePair
from assay_data.generated import generate_pairs
from assay_data.pairs import read_pairs, write_pairs
from assay_data.wire import to_proto

PAIRS = generate_pairs(400, seed=21)


@pytest_asyncio.fixture
async def stubs(tmp_path: Path) -> AsyncIterator[CleaningStubs]:
    async with cleaning_service(tmp_path / "state") as stubs:
        yield stubs


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "generated.jsonl"
    write_pairs(str(path), PAIRS)
    return path


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    found: dict[str, str] = {}
    status = rpc_status.from_call(error)
    assert status is not None
    for detail in status.details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            found |= {one.field: one.description for one in bad.field_violations}
    return found


async def refused(call: object, code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT) -> dict[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code() == code
    return violations(caught.value)


async def test_pairs_are_labelled_in_request_order(stubs: CleaningStubs) -> None:
    results = await stubs.label(PAIRS[:200])
    assert [result.labelled.pair.id for result in results] == [pair.id for pair in PAIRS[:200]]
    empty = [result.labelled for result in results if result.labelled.category == cleaning_pb2.CATEGORY_EMPTY]
    assert empty and all(one.action == cleaning_pb2.ACTION_DROP and one.evidence[0].detector.startswith("empty_") for one in empty)
    assert len({result.labelled.policy_id for result in results}) == 1


async def test_one_bad_pair_does_not_fail_its_neighbours(stubs: CleaningStubs) -> None:
    good = to_proto(PAIRS[0])
    no_role = common_pb2.PreferencePair(prompt=[common_pb2.Message(content="x")], chosen="a", rejected="b")
    wrong_id = common_pb2.PreferencePair(id="0" * 32, prompt=good.prompt, chosen="a", rejected="b")
    long = common_pb2.PreferencePair(prompt=good.prompt, chosen="x" * (LONGEST_TEXT + 1), rejected="b")
    response = await stubs.cleaning.LabelPairs(cleaning_pb2.LabelPairsRequest(pairs=[good, no_role, wrong_id, long, good]))
    assert [result.WhichOneof("outcome") for result in response.results] == ["labelled", "error", "error", "error", "labelled"]
    errors = [result.error for result in response.results[1:4]]
    assert [error.field for error in errors] == ["pairs[1].prompt[0].role", "pairs[2].id", "pairs[3].chosen"]
    assert "ROLE_USER" in errors[0].message and "leave it empty" in errors[1].message and "at most 400,000" in errors[2].message
    assert {error.code for error in errors} == {grpc.StatusCode.INVALID_ARGUMENT.value[0]}


async def test_a_message_of_ten_megabytes_is_answered_for_what_it_is(stubs: CleaningStubs) -> None:
    (result,) = await stubs.label([PreferencePair((Message("user", "x?"),), "word " * 2_000_000, "b")])
    assert result.error.field == "pairs[0].chosen" and "10,000,000 characters" in result.error.message


async def test_a_request_that_is_wrong_names_its_fields(stubs: CleaningStubs, tmp_path: Path) -> None:
    assert "1 to 1,000" in (await refused(stubs.label([])))["pairs"]
    assert "1001 pairs" in (await refused(stubs.label([PAIRS[0]] * 1001)))["pairs"]
    rules = [cleaning_pb2.CategoryRule(category=cleaning_pb2.CATEGORY_SAME)]
    wrong = await refused(stubs.label(PAIRS[:1], rules=rules, min_flip_confidence=1.5))
    assert set(wrong) == {"options.rules[0].action", "options.min_flip_confidence"}
    assert (
        "CATEGORY_SAME" in (await refused(stubs.label(PAIRS[:1], rules=[cleaning_pb2.CategoryRule(action=1)])))["options.rules[0].category"]
    )
    missing = await refused(stubs.label(PAIRS[:1], committee_uri=str(tmp_path / "none.json.gz")))
    assert "there is no such file" in missing["options.committee_uri"]


async def test_more_calls_than_there_is_room_for_are_refused_at_once(tmp_path: Path) -> None:
    async with cleaning_service(tmp_path / "state", cleaning_calls_at_once=1) as stubs:
        calls = [stubs.label(PAIRS[:300]) for _ in range(8)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        refused_calls = [outcome for outcome in outcomes if isinstance(outcome, grpc.aio.AioRpcError)]
        assert refused_calls and {error.code() for error in refused_calls} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert sum(isinstance(outcome, list) for outcome in outcomes) >= 1
        assert len(await stubs.label(PAIRS[:2])) == 2


async def test_a_stream_is_answered_in_order_with_the_options_of_its_first_message(stubs: CleaningStubs) -> None:
    keep_all = [cleaning_pb2.CategoryRule(category=number, action=cleaning_pb2.ACTION_KEEP) for number in range(1, 7)]

    async def requests() -> AsyncIterator[cleaning_pb2.LabelStreamRequest]:
        yield cleaning_pb2.LabelStreamRequest(pair=to_proto(PAIRS[0]), options=cleaning_pb2.CleaningOptions(rules=keep_all))
        yield cleaning_pb2.LabelStreamRequest(pair=common_pb2.PreferencePair(prompt=[common_pb2.Message()]))
        for pair in PAIRS[1:50]:
            yield cleaning_pb2.LabelStreamRequest(pair=to_proto(pair))

    results = [response.result async for response in stubs.cleaning.LabelStream(requests())]
    assert results[1].error.field == "pair[1].prompt[0].role"
    labelled = [result.labelled for result in results if result.HasField("labelled")]
    assert [one.pair.id for one in labelled] == [pair.id for pair in PAIRS[:50]]
    assert {one.action for one in labelled} == {cleaning_pb2.ACTION_KEEP}
    assert len({one.category for one in labelled}) > 3


async def test_detectors_are_listed_with_the_policy_of_a_plain_request(stubs: CleaningStubs) -> None:
    listed = await stubs.cleaning.ListDetectors(cleaning_pb2.ListDetectorsRequest())
    names = [detector.name for detector in listed.detectors]
    assert len(set(names)) == len(names) and names[-1] == "committee" and "both_harmful" in names
    assert {detector.category for detector in listed.detectors} == {2, 3, 4, 5, 6}
    assert all(detector.description for detector in listed.detectors)
    (result,) = await stubs.label(PAIRS[:1])
    assert listed.policy_id == result.labelled.policy_id


async def test_a_committee_of_a_job_serves_other_calls_and_all_doors_agree(stubs: CleaningStubs, generated: Path, tmp_path: Path) -> None:
    committee_uri = str(tmp_path / "committee.json.gz")
    created = await stubs.cleaning.CreateCommitteeJob(
        cleaning_pb2.CreateCommitteeJobRequest(input_uri=str(generated), output_uri=committee_uri)
    )
    fitted = result_of(await stubs.ended(created.job.id))
    assert fitted["committee_uri"] == committee_uri and fitted["rows_in"] == 400
    assert 0.5 < fitted["cross_fitted_accuracy_interval"][0] < fitted["cross_fitted_accuracy"] < fitted["cross_fitted_accuracy_interval"][1]

    job = await stubs.cleaning.CreateCleaningJob(
        cleaning_pb2.CreateCleaningJobRequest(
            input_uri=str(generated), output_uri=str(tmp_path / "out"), options=cleaning_pb2.CleaningOptions(committee_uri=committee_uri)
        )
    )
    cleaned = result_of(await stubs.ended(job.job.id))
    results = await stubs.label(PAIRS, committee_uri=committee_uri)
    labels = [cleaning_pb2.Category.Name(result.labelled.category).removeprefix("CATEGORY_") for result in results]
    assert {name: labels.count(name) for name in cleaned["categories"]} == cleaned["categories"]
    assert cleaned["categories"]["OPPOSITE"] > 20
    assert {result.labelled.policy_id for result in results} == {cleaned["policy_id"]}
    turned = {pair.turned_round().id for pair in read_pairs(cleaned["flipped_uri"])}
    assert turned == {result.labelled.pair.id for result in results if result.labelled.action == cleaning_pb2.ACTION_FLIP}


async def test_a_cleaning_job_tells_how_far_it_is_and_asking_twice_is_asking_once(
    stubs: CleaningStubs, generated: Path, tmp_path: Path
) -> None:
    request = cleaning_pb2.CreateCleaningJobRequest(job_id="mine", input_uri=str(generated), output_uri=str(tmp_path / "out"))
    first = await stubs.cleaning.CreateCleaningJob(request)
    again = await stubs.cleaning.CreateCleaningJob(request)
    assert first.job.id == again.job.id == "mine"
    stages = [
        response.event.progress.stage
        async for response in stubs.jobs.WatchJob(jobs_pb2.WatchJobRequest(id="mine"))
        if response.event.HasField("progress")
    ]
    assert list(dict.fromkeys(stages)) == ["read", "fit", "label"]
    result = result_of(await stubs.ended("mine"))
    assert result["rows_in"] == sum(result["actions"].values()) == 400
    assert rebuild_input(str(tmp_path / "out")) == {"generated.jsonl": generated.read_bytes()}


async def test_a_cleaning_job_reads_and_writes_an_object_store(stubs: CleaningStubs) -> None:
    with bucket() as store:
        write_pairs(f"{store}/in/pairs.jsonl", PAIRS[:50])
        request = cleaning_pb2.CreateCleaningJobRequest(input_uri=f"{store}/in/pairs.jsonl", output_uri=f"{store}/out")
        result = result_of(await stubs.ended((await stubs.cleaning.CreateCleaningJob(request)).job.id))
        assert result["rows_in"] == 50 and result["flipped_uri"].startswith(f"{store}/out/")
        assert list(rebuild_input(f"{store}/out").values()) == [storage.local_path(f"{store}/in/pairs.jsonl").read_bytes()]
        missing = cleaning_pb2.CreateCleaningJobRequest(input_uri=f"{store}-gone/pairs.jsonl", output_uri=f"{store}/out2")
        assert "there is no such file" in (await refused(stubs.cleaning.CreateCleaningJob(missing)))["input_uri"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("half.jsonl", b'{"prompt":"p","chosen":"c","rejected":"r"}\n{"prompt":"p","chosen":"c"}\n', "row 2, field rejected: missing"),
        ("cut.jsonl.gz", gzip.compress(b'{"prompt":"p","chosen":"c","rejected":"r"}\n' * 2000)[:-15], "cut short"),
        ("picture.jsonl", b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8"),
    ],
)
async def test_a_bad_file_fails_the_job_by_row_and_leaves_nothing(
    stubs: CleaningStubs, tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(content)
    for create in (
        stubs.cleaning.CreateCleaningJob(
            cleaning_pb2.CreateCleaningJobRequest(input_uri=str(tmp_path / "in" / name), output_uri=str(tmp_path / "out"))
        ),
        stubs.cleaning.CreateCommitteeJob(
            cleaning_pb2.CreateCommitteeJobRequest(input_uri=str(tmp_path / "in" / name), output_uri=str(tmp_path / "out"))
        ),
    ):
        job = await stubs.ended((await create).job.id)
        assert job.state == jobs_pb2.JOB_STATE_FAILED
        assert name in job.error and says in job.error
    assert sorted(os.listdir(tmp_path)) == ["in", "state"]


async def test_a_job_that_cannot_be_is_refused_before_it_is_one(stubs: CleaningStubs, generated: Path, tmp_path: Path) -> None:
    async def create(**fields: object) -> dict[str, str]:
        wanted = {"input_uri": str(generated), "output_uri": str(tmp_path / "out"), **fields}
        return await refused(stubs.cleaning.CreateCleaningJob(cleaning_pb2.CreateCleaningJobRequest(**wanted)))

    assert set(await create(input_uri="", output_uri="")) == {"input_uri", "output_uri"}
    assert "no such file" in (await create(input_uri=str(tmp_path / "none.jsonl")))["input_uri"]
    assert "an absolute path" in (await create(output_uri="out"))["output_uri"]
    assert "a folder is wanted" in (await create(output_uri=str(generated)))["output_uri"]
    assert "options.min_flip_confidence" in await create(options=cleaning_pb2.CleaningOptions(min_flip_confidence=-1))
    to_folder = cleaning_pb2.CreateCommitteeJobRequest(input_uri=str(generated), output_uri=str(tmp_path))
    assert "a file is wanted" in (await refused(stubs.cleaning.CreateCommitteeJob(to_folder)))["output_uri"]
    assert not (await stubs.jobs.ListJobs(jobs_pb2.ListJobsRequest())).jobs


async def test_too_few_pairs_for_a_committee_fail_the_job_in_words(stubs: CleaningStubs, tmp_path: Path) -> None:
    write_pairs(str(tmp_path / "few.jsonl"), PAIRS[:20])
    created = await stubs.cleaning.CreateCommitteeJob(
        cleaning_pb2.CreateCommitteeJobRequest(input_uri=str(tmp_path / "few.jsonl"), output_uri=str(tmp_path / "c"))
    )
    job = await stubs.ended(created.job.id)
    assert job.state == jobs_pb2.JOB_STATE_FAILED and "too few of its 20 pairs have a direction; 50 are wanted" in job.error
    assert not (tmp_path / "c").exists()


async def test_a_job_cancelled_at_work_leaves_nothing(stubs: CleaningStubs, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_pairs(str(tmp_path / "in" / "many.jsonl"), generate_pairs(6000, seed=1))
    created = await stubs.cleaning.CreateCleaningJob(
        cleaning_pb2.CreateCleaningJobRequest(input_uri=str(tmp_path / "in"), output_uri=str(tmp_path / "out"))
    )
    async for response in stubs.jobs.WatchJob(jobs_pb2.WatchJobRequest(id=created.job.id)):
        if response.event.progress.stage == "fit":
            await stubs.jobs.CancelJob(jobs_pb2.CancelJobRequest(id=created.job.id))
    job = await stubs.ended(created.job.id)
    assert job.state == jobs_pb2.JOB_STATE_CANCELLED
    for _ in range(100):
        if sorted(os.listdir(tmp_path)) == ["in", "state"]:
            break
        await asyncio.sleep(0.1)
    assert sorted(os.listdir(tmp_path)) == ["in", "state"]
