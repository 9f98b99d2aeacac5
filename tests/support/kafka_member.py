"""A member of a consumer group in a process of its own: python kafka_member.py BOOTSTRAP GROUP INPUT OUTPUT NAME SECONDS.

Copies the input topic to the output topic, SECONDS a batch, and says on standard output what it takes.
"""

import logging
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.kafka_topics import answers_in, topic_of

from assay_kit.kafka import KafkaConnection, Output, Record, TransactionalWorker


def main(bootstrap: str, group: str, source: str, target: str, name: str, seconds: str) -> None:
    logging.basicConfig(level="WARNING")
    answer = answers_in(topic_of(target), by=name)
    pause = threading.Event()

    def handle(records: Sequence[Record]) -> list[list[Output]]:
        print("took", len(records), flush=True)
        pause.wait(float(seconds))
        return answer(list(records))

    connection = KafkaConnection(bootstrap, instance=name)
    worker = TransactionalWorker(connection, service="test", group=group, topics=[topic_of(source)], handle=handle, max_batch=10)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    worker.start()
    signal.sigwait({signal.SIGTERM})
    worker.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
