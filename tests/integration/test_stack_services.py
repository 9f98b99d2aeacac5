import json
import os
import signal
import socket
import threading

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.kafka_topics import fresh_topics, numbers_of, publish, read

from assay_cli import kafka_jars
from assay_cli.broker import LocalBroker
from assay_cli.stack import SERVICES, LocalStack
from assay_kit.kafka import KafkaConnection


def serving(target, name):
    with grpc.insecure_channel(target, options=[("grpc.max_reconnect_backoff_ms", 500)]) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name), timeout=90, wait_for_ready=True)
        return any(answer.status == health_pb2.HealthCheckResponse.SERVING for answer in watch)


def test_the_five_services_come_up_with_kafka_and_a_killed_one_comes_back(tmp_path):
    reports = []
    with LocalStack(tmp_path / "state", report=lambda *line: reports.append(line)) as stack:
        assert set(stack.endpoints) == {service.name for service in SERVICES}
        host, port = stack.kafka_bootstrap.split(":")
        socket.create_connection((host, int(port)), timeout=5).close()
        written = json.loads((tmp_path / "state" / "endpoints.json").read_text())
        assert written["kafka"] == stack.kafka_bootstrap
        former = stack.processes["cleaning"].pid
        os.kill(former, signal.SIGKILL)
        stack_sees_it(stack, "cleaning", former)
        assert serving(stack.endpoints["cleaning"], "assay.cleaning.v1.CleaningService")
        assert stack.processes["cleaning"].restarts == 1
        assert [status.restarts for name, status in stack.processes.items() if name != "cleaning"] == [0] * 5
    # Of the broker, which also complains where the machine is so busy that its own heartbeats are late, this test says nothing.
    assert [line for name, line in reports if name != "kafka" and "SIGKILL" not in line] == []


def stack_sees_it(stack, name, former):
    pause = threading.Event()
    while stack.processes[name].pid in (former, None):
        pause.wait(0.05)


def test_a_broker_finds_its_topics_again_also_at_another_port(tmp_path):

    with LocalBroker(tmp_path / "kafka") as broker:
        former = broker.port
        [topic] = fresh_topics(KafkaConnection(broker.bootstrap), "kept")
        publish(KafkaConnection(broker.bootstrap), topic, range(5))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", former))
        taken.listen()
        with LocalBroker(tmp_path / "kafka") as broker:
            assert broker.port != former
            assert numbers_of(read(KafkaConnection(broker.bootstrap), topic, 5)) == list(range(5))


def test_without_maven_central_the_message_says_what_to_do(tmp_path, monkeypatch):
    def away(endpoint):
        raise ConnectionError("repo.example does not answer")

    monkeypatch.setattr("jgo.build", away)
    with pytest.raises(kafka_jars.JarsMissing, match="Maven Central.*repo.example does not answer.*ASSAY_KAFKA_BOOTSTRAP"):
        kafka_jars.kafka_jars(tmp_path)


def test_jars_are_fetched_once_and_again_when_one_is_gone(tmp_path, monkeypatch):
    fetched = []

    class Built:
        def __init__(self, endpoint):
            fetched.append(endpoint)
            name = "kafka_2.13-4.3.1.jar" if "kafka" in endpoint else "log4j-slf4j-impl.jar"
            self.all_jars = [tmp_path / name]
            self.all_jars[0].write_bytes(b"jar")

    monkeypatch.setattr("jgo.build", Built)
    first = kafka_jars.kafka_jars(tmp_path)
    assert kafka_jars.kafka_jars(tmp_path) == first and len(fetched) == 2
    first[0].unlink()
    assert kafka_jars.kafka_jars(tmp_path) == first and len(fetched) == 4
