"""Asks a cleaning service on the image's own ports, from within its network: prints what it answered, as JSON."""

from __future__ import annotations

import json
import urllib.request

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from assay.cleaning.v1 import cleaning_pb2, cleaning_pb2_grpc
from assay_data.generated import generate_pairs
from assay_data.wire import to_proto


def main() -> None:
    """What a kubelet, a caller and Prometheus see."""
    answers: dict[str, object] = {}
    with grpc.insecure_channel("127.0.0.1:50052") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "assay.cleaning.v1.CleaningService"):
            request = health_pb2.HealthCheckRequest(service=service)
            status = health.Check(request, timeout=10, wait_for_ready=True).status
            answers[f"health of {service!r}"] = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    with grpc.insecure_channel("127.0.0.1:50051") as channel:
        pairs = [to_proto(pair) for pair in generate_pairs(20, seed=3)]
        results = cleaning_pb2_grpc.CleaningServiceStub(channel).LabelPairs(cleaning_pb2.LabelPairsRequest(pairs=pairs), timeout=60).results
        answers["labelled"] = sum(result.labelled.category != cleaning_pb2.CATEGORY_UNSPECIFIED for result in results)
    with urllib.request.urlopen("http://127.0.0.1:9090/metrics", timeout=10) as page:
        answers["calls counted"] = 'grpc_method="LabelPairs"' in page.read().decode()
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
