import json
import subprocess
import sys

SAID = """
import logging
from assay_kit.logs import set_up_logs

set_up_logs("reward", "INFO", "json")
logging.getLogger("kafka.cluster").info("a refresh")
logging.getLogger("assay_kit.server").info("serving")
logging.getLogger("assay_kit.kafka_worker").error("the batch is held back")
try:
    raise OSError("the socket is closed")
except OSError:
    for _ in range(3):
        logging.getLogger("kafka.net.transport").exception("Error receiving network data")
"""


def test_an_error_of_ours_stays_one_and_that_of_the_kafka_library_is_a_warning_said_once_in_a_while():
    done = subprocess.run([sys.executable, "-c", SAID], capture_output=True, text=True, check=True)
    passing, ours, theirs = [json.loads(line) for line in done.stderr.splitlines()]
    assert (passing["level"], passing["message"], passing["service"]) == ("INFO", "serving", "reward")
    assert (ours["level"], ours["message"]) == ("ERROR", "the batch is held back")
    assert (theirs["level"], theirs["message"]) == ("WARNING", "Error receiving network data")
    assert "the socket is closed" in theirs["exception"]
