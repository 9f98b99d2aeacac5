import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import small_stack
from support.small_service import NAME
from support.small_stack import small

from assay_cli.ports import free_ports
from assay_cli.stack import LocalStack, StackError


@pytest.fixture
def reports():
    return queue.Queue()


@pytest.fixture
def stack_of(tmp_path, reports):
    def make(*services, **options):
        options = {"kafka_bootstrap": "", "report": lambda *line: reports.put(line), "grace_s": 5.0, **options}
        return LocalStack(tmp_path / "state", services=services, **options)

    return make


def is_serving(target):
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(health_pb2.HealthCheckRequest(service=NAME), timeout=10, wait_for_ready=True)
    return answer.status == health_pb2.HealthCheckResponse.SERVING


def wait_until_gone(ids, timeout_s=15.0):
    _, alive = psutil.wait_procs([psutil.Process(number) for number in ids if psutil.pid_exists(number)], timeout=timeout_s)
    return [process.pid for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_stack_that_is_up_serves_and_tells_where(stack_of, tmp_path):
    with stack_of(small("first"), small("second")) as stack:
        written = json.loads((tmp_path / "state" / "endpoints.json").read_text())
        assert {name: written[name] for name in ("first", "second")} == stack.endpoints
        assert written["metrics"]["first"].startswith("http://127.0.0.1:") and written["kafka"] == ""
        assert all(is_serving(target) for target in stack.endpoints.values())
        assert [row[0] for row in stack.endpoint_rows()] == ["first", "second"]
        ids = [status.pid for status in stack.processes.values()]
    assert wait_until_gone(ids) == []
    assert not (tmp_path / "state" / "endpoints.json").exists()


def test_each_service_is_told_where_the_others_are(stack_of, tmp_path):
    with stack_of(small("first"), small("second"), extra_env={"ASSAY_EXTRA": "yes"}) as stack:
        environment = psutil.Process(stack.processes["first"].pid).environ()
        assert environment["ASSAY_SECOND_TARGET"] == stack.endpoints["second"]
        assert "ASSAY_FIRST_TARGET" not in environment
        assert environment["ASSAY_DATA_DIR"] == str(tmp_path / "state" / "first")
        assert environment["ASSAY_EXTRA"] == "yes"
        assert environment["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_killed_service_comes_back_at_its_address_and_what_it_had_started_does_not_outlive_it(stack_of, tmp_path, reports):
    with stack_of(small("first", "child"), small("second")) as stack:
        former, target = stack.processes["first"], stack.endpoints["first"]
        child = int((tmp_path / "state" / "first" / "child").read_text())
        os.kill(former.pid, signal.SIGKILL)
        name, line = reports.get(timeout=10)
        assert name == "first" and "was ended by SIGKILL; it is started again" in line
        assert wait_until_gone([former.pid, child]) == []
        assert is_serving(target)
        now = stack.processes["first"]
        assert now.restarts == 1 and now.pid != former.pid
        assert stack.processes["second"].restarts == 0


def test_errors_in_the_log_are_reported_and_all_lines_are_kept(stack_of, tmp_path, reports):
    with stack_of(small("first", "error")):
        assert reports.get(timeout=10) == ("first", "the model is broken")
    assert reports.empty()
    log = (tmp_path / "state" / "logs" / "first.log").read_text()
    assert "the model is broken" in log and "no ERROR at all" in log


def test_a_second_stack_on_the_same_folder_is_refused_and_the_first_goes_on(stack_of):
    with stack_of(small("first")) as stack:
        with pytest.raises(StackError, match=rf"another stack \(process {os.getpid()}\) runs on .*choose another folder"):
            stack_of(small("first")).start()
        assert is_serving(stack.endpoints["first"])


def test_a_stack_started_afresh_removes_the_former_state_but_not_that_of_one_that_runs(stack_of, tmp_path):
    former = tmp_path / "state" / "first" / "former-run" / "checkpoint"
    former.parent.mkdir(parents=True)
    former.write_text("large")
    with stack_of(small("first")):
        assert former.exists()
        with pytest.raises(StackError, match="another stack"):
            stack_of(small("first"), afresh=True).start()
        assert former.exists()
    with stack_of(small("first"), afresh=True) as stack:
        assert not former.exists()
        assert is_serving(stack.endpoints["first"])


def test_a_service_that_refuses_its_settings_stops_the_start_with_its_own_words(stack_of):
    stack = stack_of(small("first"), small("second", "refuse"))
    with pytest.raises(StackError, match="the second service has ended.*\nASSAY_SMALL_THING=-1: must be greater than 0"):
        stack.start()
    assert stack.processes == {}


def test_a_service_that_is_never_ready_stops_the_start_in_time(stack_of, tmp_path):
    stack = stack_of(small("first", "never-ready", "child"), start_timeout_s=3.0)
    with pytest.raises(StackError, match=r"the first service was not ready within 3 s, see .*first\.log"):
        stack.start()
    assert wait_until_gone([int((tmp_path / "state" / "first" / "child").read_text())]) == []


def test_a_service_that_will_not_end_is_killed_with_all_it_has_started(stack_of, tmp_path, reports):
    with stack_of(small("first", "stubborn", "child"), grace_s=1.0) as stack:
        ids = [stack.processes["first"].pid, int((tmp_path / "state" / "first" / "child").read_text())]
        began = time.monotonic()
    assert time.monotonic() - began < 6
    assert wait_until_gone(ids) == []
    assert reports.get(timeout=1) == ("first", "did not end within 1 s and is killed")


def test_the_next_start_finds_its_ports_again_and_others_where_they_are_taken(stack_of):
    with stack_of(small("first"), small("second")) as stack:
        former = stack.endpoints
    with stack_of(small("first"), small("second")) as stack:
        assert stack.endpoints == former
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(former["first"].partition(":")[2])))
        taken.listen()
        with stack_of(small("first"), small("second")) as stack:
            assert former["first"] not in stack.endpoints.values()
            assert is_serving(stack.endpoints["first"])


def test_free_ports_are_different_and_out_of_the_way_of_outgoing_connections():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(20_000 <= port < 30_000 for port in ports)


def catches(pid, number):
    """Whether a process has a handler for a signal."""
    [mask] = [line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:")]
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_outlives_the_stack_however_it_ends(tmp_path, how):
    process = subprocess.Popen([sys.executable, small_stack.__file__, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with process.stdout:
        ids = [int(number) for number in process.stdout.readline().split()]
        assert len(ids) == 3 and all(psutil.pid_exists(number) for number in ids)
        while not catches(process.pid, signal.SIGHUP):  # the last of those that `run_forever` waits for
            assert process.poll() is None
        process.send_signal(how)
        assert process.wait(30) == (-how if how == signal.SIGKILL else 0)
    assert wait_until_gone(ids) == []


def test_sigterm_while_the_stack_starts_leaves_nothing(tmp_path):
    code = (
        "import sys; sys.path[:0] = sys.argv[2:]; from support.small_stack import small; from assay_cli.stack import LocalStack\n"
        "with LocalStack(sys.argv[1], kafka_bootstrap='', services=[small('first', 'never-ready', 'child')]): pass"
    )
    tests = str(Path(small_stack.__file__).parents[1])
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), tests])
    child = tmp_path / "first" / "child"
    pause = threading.Event()
    while not (child.exists() and child.read_text()):
        assert process.poll() is None
        pause.wait(0.05)
    number = int(child.read_text())
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert wait_until_gone([number]) == []
