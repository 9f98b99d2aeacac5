"""A service with nothing but health: python small_service.py [error] [child] [stubborn] [never-ready] [refuse].

Stands for a real one where a test is about how processes are started, watched and ended.
"""

import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

NAME = "assay.small.v1.SmallService"


def main(wishes: list[str]) -> None:
    if "refuse" in wishes:
        print("ASSAY_SMALL_THING=-1: must be greater than 0", file=sys.stderr)
        raise SystemExit(2)
    if "child" in wishes:  # in a session of its own, as nothing but its mark shows whose it is
        child = subprocess.Popen(["sleep", "600"], start_new_session=True)
        Path(os.environ["ASSAY_DATA_DIR"], "child").write_text(str(child.pid))
    if "error" in wishes:
        print('{"level": "ERROR", "message": "the model is broken"}', file=sys.stderr)
        print('{"level": "INFO", "message": "no ERROR at all"}', file=sys.stderr)
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    server.add_insecure_port(f"127.0.0.1:{os.environ['ASSAY_GRPC_PORT']}")
    server.start()
    if "never-ready" not in wishes:
        checks.set(NAME, health_pb2.HealthCheckResponse.SERVING)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: None if "stubborn" in wishes else stop.set())
    stop.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
