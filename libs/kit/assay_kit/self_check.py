"""What a pod of a service sees of the world: its peers, Kafka with its rights, its certificate, its device, its models' quality cards.

`python -m assay_kit.self_check SERVICE` within the pod prints it as JSON; `assay doctor --cluster` asks every component so. It changes
nothing: it describes topics and groups, and calls health and ListModels.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import socket
import ssl
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from kafka.errors import KafkaError

from assay.reward.v1 import reward_pb2, reward_pb2_grpc
from assay_kit.acls import AclRule, rules_of
from assay_kit.errors import AssayError
from assay_kit.kafka_connection import KafkaConnection
from assay_kit.settings import SERVICES, ServiceSettings
from assay_kit.tls import AUTHORITY, CERTIFICATE, KEY

ANSWER_SECONDS = 5.0
DAYS_LEFT_WANTED = 14.0
"""A certificate with less than this to go should have been renewed."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One thing looked at; `remedy` says what to do where it is not good."""

    what: str
    good: bool
    found: str
    remedy: str = ""


def look(settings: ServiceSettings, service: str, *, device: bool = False) -> Iterator[Seen]:
    """Looks at everything that the settings name.

    Args:
        settings: of the pod.
        service: whose pod it is.
        device: whether the pod was given a GPU.
    """
    for peer in SERVICES:
        target = getattr(settings, f"{peer}_target")
        if target:
            yield see_peer(settings, peer, target)
    if settings.kafka_bootstrap:
        yield from see_kafka(KafkaConnection.from_settings(settings), service)
    if settings.tls_dir is not None:
        yield see_certificate(settings)
    if device:
        yield see_device()
    if service == "reward":
        yield from see_cards(settings)


def _channel(settings: ServiceSettings, target: str, authority: str = "") -> grpc.Channel:
    if settings.tls_dir is None:
        return grpc.insecure_channel(target)
    authority_file, key, certificate = ((settings.tls_dir / name).read_bytes() for name in (AUTHORITY, KEY, CERTIFICATE))
    options = [("grpc.ssl_target_name_override", authority)] if authority else []
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(authority_file, key, certificate), options=options)


def see_peer(settings: ServiceSettings, peer: str, target: str) -> Seen:
    """The peer's name resolves, it lets this pod in, and it is ready."""
    what = f"reaches {peer}"
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)}
    except (OSError, ValueError) as error:
        remedy = f"No pod of {peer} is ready, or DNS is closed to this pod (networkPolicy.dns)."
        return Seen(what=what, good=False, found=f"{host}: {error}", remedy=remedy)
    name = f"assay.{peer}.v1.{peer.capitalize()}Service"
    with _channel(settings, target) as channel:
        try:
            request = health_pb2.HealthCheckRequest(service=name)
            status = health_pb2_grpc.HealthStub(channel).Check(request, timeout=ANSWER_SECONDS).status
        except grpc.RpcError as error:
            remedy = f"A NetworkPolicy, or certificates of two authorities: look at the log of {peer}."
            return Seen(what=what, good=False, found=f"{target}: {error.code().name} {error.details()}", remedy=remedy)
    ready = status == health_pb2.HealthCheckResponse.SERVING
    return Seen(
        what=what, good=ready, found=f"{len(addresses)} address{'es' * (len(addresses) > 1)}", remedy=f"{peer} is alive, not ready."
    )


def see_kafka(connection: KafkaConnection, service: str) -> Iterator[Seen]:
    """The brokers answer, and this user may do what the table of rights says."""
    try:
        admin = connection.admin(client_id="assay-self-check")
    except (AssayError, KafkaError) as error:
        remedy = "Brokers, user and password, the brokers' CA, and the way there (networkPolicy.kafka)."
        yield Seen(what="reaches Kafka", good=False, found=f"{connection.bootstrap}: {error}", remedy=remedy)
        return
    with contextlib.closing(admin):
        yield Seen(what="reaches Kafka", good=True, found=f"{connection.bootstrap} as {connection.access.who}")
        rules = rules_of(service)
        missing = [*_topics_amiss(admin, [rule for rule in rules if rule.resource == "topic"])]
        missing += [*_groups_amiss(admin, [rule for rule in rules if rule.resource == "group"])]
    count = sum(rule.resource in ("topic", "group") for rule in rules)
    remedy = "Topics and rights are those of `python -m assay_kit.topics` and `python -m assay_kit.acls`; with Strimzi see the KafkaUser."
    yield Seen(what="Kafka rights", good=not missing, found="; ".join(missing) or f"all of {count} topics and groups", remedy=remedy)


def _lacking(may: Collection[str] | None, rule: AclRule) -> Iterator[str]:
    """What of a rule the broker does not grant.

    Args:
        may: operations granted, as the client names them; None where the broker does not say.
        rule: what is wanted.
    """
    lacking = [operation for operation in rule.operations if may is not None and operation.upper() not in may]
    if lacking:
        yield f"no {' and '.join(lacking)} on {rule.resource} {rule.name}"


def _topics_amiss(admin: Any, rules: Sequence[AclRule]) -> Iterator[str]:
    described = {topic["name"]: topic for topic in admin.describe_topics([rule.name for rule in rules])}
    for rule in rules:
        topic = described[rule.name]
        if topic["error_code"]:
            yield f"topic {rule.name} is not there, or not to be seen by this user"
        else:
            yield from _lacking(topic["authorized_operations"], rule)


def _groups_amiss(admin: Any, rules: Sequence[AclRule]) -> Iterator[str]:
    for rule in rules:
        try:
            (group,) = admin.describe_groups([rule.name]).values()
        except KafkaError as error:
            yield f"group {rule.name}: {type(error).__name__}"
        else:
            yield from _lacking(group["authorized_operations"], rule)


def _own_address(settings: ServiceSettings) -> tuple[str, int]:
    return "127.0.0.1" if settings.grpc_host in ("0.0.0.0", "::") else settings.grpc_host, settings.grpc_port


def _own_certificate(settings: ServiceSettings) -> dict[str, Any]:
    """The certificate that this pod's own server shows, which is the one in use.

    Raises:
        OSError: it shows none that the authority signed.
    """
    assert settings.tls_dir is not None
    context = ssl.create_default_context(cafile=settings.tls_dir / AUTHORITY)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_cert_chain(settings.tls_dir / CERTIFICATE, settings.tls_dir / KEY)
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(_own_address(settings), ANSWER_SECONDS) as connection, context.wrap_socket(connection) as tls:
        return tls.getpeercert() or {}


def see_certificate(settings: ServiceSettings, *, now_s: float | None = None) -> Seen:
    """The certificate in use is of the authority and has time to go.

    Args:
        settings: of the pod.
        now_s: seconds since 1970; by default the clock's.
    """
    remedy = "cert-manager renews it: `kubectl describe certificate` says why it did not."
    try:
        ends = str(_own_certificate(settings)["notAfter"])
    except (OSError, KeyError) as error:
        return Seen(what="certificate", good=False, found=str(error), remedy=remedy)
    left = (ssl.cert_time_to_seconds(ends) - (time.time() if now_s is None else now_s)) / 86400
    return Seen(what="certificate", good=left >= DAYS_LEFT_WANTED, found=f"good for {left:.0f} days", remedy=remedy)


def see_device() -> Seen:
    """The torch of the image sees a GPU."""
    remedy = "The image must be a -cuda one, the node's driver new enough for it, and the device plugin in order (accelerator.*)."
    try:
        torch = importlib.import_module("torch")  # which not every image has
    except ImportError as error:
        return Seen(what="GPU", good=False, found=str(error), remedy=remedy)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(count))
    return Seen(what="GPU", good=count > 0, found=names or f"none (torch {torch.__version__})", remedy=remedy)


def see_cards(settings: ServiceSettings) -> Iterator[Seen]:
    """Each loaded reward model was measured."""
    host, port = _own_address(settings)
    try:
        # the certificate is for the Service's name, which this address is not
        names = [] if settings.tls_dir is None else [name for kind, name in _own_certificate(settings)["subjectAltName"] if kind == "DNS"]
        with _channel(settings, f"{host}:{port}", *names[:1]) as channel:
            models = reward_pb2_grpc.RewardServiceStub(channel).ListModels(reward_pb2.ListModelsRequest(), timeout=ANSWER_SECONDS).models
    except (OSError, KeyError, grpc.RpcError) as error:
        yield Seen(what="models", good=False, found=" ".join(str(error).split())[:200], remedy="See the reward service's log.")
        return
    if not models:
        remedy = "Name models in reward.preload, or load one: assay models load reward NAME URI"
        yield Seen(what="models", good=False, found="none is loaded", remedy=remedy)
    for model in models:
        measured = model.HasField("quality_card")
        found = "there" if measured else "nobody has measured it"
        remedy = f"assay bench {model.name} --data held-out.jsonl"
        yield Seen(what=f"quality card of {model.name}", good=measured, found=found, remedy=remedy)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; exit code 0 where it could look, whatever it saw."""
    parser = argparse.ArgumentParser(prog="python -m assay_kit.self_check", description="What this pod sees, as JSON.")
    parser.add_argument("service", choices=SERVICES)
    parser.add_argument("--device", action="store_true", help="the pod was given a GPU")
    asked = parser.parse_args(argv)
    print(json.dumps([asdict(seen) for seen in look(ServiceSettings(), asked.service, device=asked.device)]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
