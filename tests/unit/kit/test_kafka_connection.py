import gc
import os
import socket
import threading

import pytest

from assay_kit.errors import Unavailable
from assay_kit.kafka import KafkaConnection
from assay_kit.settings import ServiceSettings


def files():
    """What this process has open; a socket is named by a number that no other has."""
    with os.scandir("/proc/self/fd") as entries:
        return {os.readlink(entry.path) for entry in entries if os.path.lexists(entry.path)}


def test_trying_in_vain_leaves_neither_threads_nor_sockets(caplog):
    caplog.set_level("CRITICAL", "kafka")  # captured log records would hold on to the clients
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        connection = KafkaConnection(f"127.0.0.1:{taken.getsockname()[1]}", bootstrap_timeout_s=0.2)
        threads, open_files = set(threading.enumerate()), files()
        for make in (connection.producer, connection.consumer, connection.admin):
            with pytest.raises(Unavailable, match=f"Kafka at {connection.bootstrap} does not answer"):
                make(client_id="test")
        gc.collect()  # the error's traceback and the client refer to each other
        assert set(threading.enumerate()) <= threads
        assert files() <= open_files


def test_a_service_keeps_its_instance_over_restarts_and_shares_it_with_no_other(tmp_path):
    def instance(folder):
        settings = ServiceSettings(kafka_bootstrap="127.0.0.1:1", data_dir=tmp_path / folder)
        return KafkaConnection.from_settings(settings).instance

    assert instance("one") == instance("one")
    assert instance("one") != instance("two")
