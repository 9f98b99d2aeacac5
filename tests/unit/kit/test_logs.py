import json
import logging

import pytest

from assay_kit.logs import set_up_logs


@pytest.fixture
def lines(capsys):
    """What was logged, as JSON; the test's own logging is put back afterwards."""
    root = logging.getLogger()
    former, level = list(root.handlers), root.level
    set_up_logs("reward", "INFO", "json")
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.handlers[:] = former
    root.setLevel(level)


def test_an_error_of_ours_stays_one_and_that_of_the_kafka_library_is_a_warning(lines):
    logging.getLogger("assay_kit.kafka_worker").error("the batch is held back")
    try:
        raise OSError("the socket is closed")
    except OSError:
        logging.getLogger("kafka.net.transport").exception("Error receiving network data")
    ours, theirs = lines()
    assert (ours["level"], ours["message"], ours["service"]) == ("ERROR", "the batch is held back", "reward")
    assert (theirs["level"], theirs["message"]) == ("WARNING", "Error receiving network data")
    assert "the socket is closed" in theirs["exception"]


def test_what_libraries_say_in_passing_is_left_out(lines):
    logging.getLogger("kafka.cluster").info("a refresh")
    logging.getLogger("assay_kit.server").info("serving")
    assert [line["message"] for line in lines()] == ["serving"]
