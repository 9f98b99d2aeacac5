"""The policy service's Kafka door on the real broker."""

from pathlib import Path

from support.policy_service import generate_request, policy_process
from support.tiny_models import write_tiny_causal_lm

from assay.policy.v1 import policy_pb2
from assay_kit.kafka import EventProducer, KafkaConnection, collect, end_offsets, ensure_topics
from assay_kit.topics import DEAD_LETTERS, GENERATIONS_COMPLETED, GENERATIONS_REQUESTED
from assay_policy.settings import PolicySettings


def test_requests_are_answered_once_each_through_kill_9_and_as_grpc_answers_them(tmp_path: Path, kafka_bootstrap: str):
    folder = write_tiny_causal_lm(tmp_path / "model")
    connection = KafkaConnection.from_settings(PolicySettings(data_dir=tmp_path / "client", kafka_bootstrap=kafka_bootstrap))
    ensure_topics(connection)
    environment = {
        "ASSAY_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "ASSAY_POLICY_PRELOAD": f'{{"sft": "{folder}"}}',
    }
    requests = {
        f"r{index}": generate_request(f"Question {index}", "Hi", n=4, max_new_tokens=24, seed=index, request_id=f"r{index}")
        for index in range(12)
    }
    found: dict[str, list[policy_pb2.Generation]] = {name: [] for name in requests}
    with policy_process(tmp_path / "state", **environment) as process:
        process.start()
        start, letters = end_offsets(connection, GENERATIONS_COMPLETED), end_offsets(connection, DEAD_LETTERS)
        producer = EventProducer(connection, "test")
        for name, request in requests.items():
            producer.send(GENERATIONS_REQUESTED, name, request)
        producer.send(GENERATIONS_REQUESTED, "bad", generate_request("Hi", temperature=9.0, request_id="bad"))
        producer.flush(30)
        producer.close()
        process.kill()
        stubs = process.start()

        def note(record) -> bool:
            if record.message.request_id in found:
                found[record.message.request_id].append(record.message)
            return True

        collect(
            connection,
            GENERATIONS_COMPLETED,
            start=start,
            wanted=note,
            until=lambda: all(len(generations) == 2 for generations in found.values()),
            timeout_s=90,
        )
        refused: list[str] = []

        def note_refusal(record) -> bool:
            if record.key == b"bad":
                refused.append(record.message.error)
            return True

        collect(connection, DEAD_LETTERS, start=letters, wanted=note_refusal, until=lambda: bool(refused), timeout_s=90)
        for name, request in requests.items():
            expected = stubs.policy.Generate(request).generations
            assert sorted(found[name], key=lambda generation: generation.prompt_id) == list(expected)
    assert len(refused) == 1 and "sampling.temperature" in refused[0]
