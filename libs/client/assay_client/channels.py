"""Channels to services: one address or several, calls spread over all of them, connections kept alive, TLS where it is asked for."""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc

MESSAGE_BYTES = 64 * 1024 * 1024
"""Largest message sent or taken, as the services have it."""
_KEEPALIVE_MS = 60_000
_KEEPALIVE_TIMEOUT_MS = 20_000
_RESOLVE_AGAIN_MS = 5_000


@dataclass(frozen=True, kw_only=True)
class Security:
    """TLS to a service, and who calls.

    Example:
        >>> Security(ca_file="/etc/assay/ca.pem", token="secret")
        Security(ca_file='/etc/assay/ca.pem', cert_file='', key_file='')
    """

    ca_file: str = ""
    """PEM file with the authorities that are trusted; empty: those that gRPC brings along."""
    cert_file: str = ""
    """PEM file with the client's own certificate, for mutual TLS; with `key_file`."""
    key_file: str = ""
    """PEM file with the key of `cert_file`."""
    token: str | None = field(default=None, repr=False)
    """Bearer token, sent as `authorization: Bearer …` with each call; never without TLS."""

    def __post_init__(self) -> None:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: both for mutual TLS, or neither")

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str] | None) -> Self | None:
        """Mutual TLS with ca.crt, tls.crt and tls.key in a folder, as cert-manager writes them; None without a folder."""
        if not folder:
            return None
        where = Path(folder)
        return cls(ca_file=str(where / "ca.crt"), cert_file=str(where / "tls.crt"), key_file=str(where / "tls.key"))

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self | None:
        """As `from_folder`, with the folder that ASSAY_TLS_DIR names."""
        return cls.from_folder((os.environ if environment is None else environment).get("ASSAY_TLS_DIR"))

    def written(self) -> tuple[tuple[int, int, int], ...]:
        """Differs where the files have changed; a channel opened before keeps to what was in them then."""
        stamps = []
        for file in (self.ca_file, self.cert_file, self.key_file):
            try:
                found = os.stat(file)
            except OSError:  # none, or away for a moment: opening a channel says which
                continue
            stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(stamps)

    def credentials(self) -> grpc.ChannelCredentials:
        """What a secure channel is opened with.

        Raises:
            OSError: a file is not there.
        """
        tls = grpc.ssl_channel_credentials(_content(self.ca_file), _content(self.key_file), _content(self.cert_file))
        return tls if self.token is None else grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(self.token))


def open_channel(target: str, security: Security | None = None) -> grpc.Channel:
    """A channel for threads; it connects with the first call. `target` is as `target_of` takes it."""
    if security is None:
        return grpc.insecure_channel(target_of(target), options=channel_options())
    return grpc.secure_channel(target_of(target), security.credentials(), options=channel_options())


def open_async_channel(target: str, security: Security | None = None) -> grpc.aio.Channel:
    """A channel for the event loop that is running; it connects with the first call. `target` is as `target_of` takes it."""
    if security is None:
        return grpc.aio.insecure_channel(target_of(target), options=channel_options())
    return grpc.aio.secure_channel(target_of(target), security.credentials(), options=channel_options())


def target_of(addresses: str) -> str:
    """The name that gRPC resolves.

    Args:
        addresses: `host:port` or `dns:///host:port`, whose addresses are all used: a headless service of Kubernetes gives one a pod. Or
            several `address:port` with commas between; those are addresses, not names, as gRPC resolves only one name a channel.

    Raises:
        ValueError: one of several is a name, or they are not of one kind.

    Example:
        >>> target_of("127.0.0.1:50051, 127.0.0.1:50061")
        'ipv4:127.0.0.1:50051,127.0.0.1:50061'
        >>> target_of("dns:///assay-reward-headless.assay.svc:50051")
        'dns:///assay-reward-headless.assay.svc:50051'
    """
    several = [one.strip() for one in addresses.split(",") if one.strip()]
    if len(several) < 2 or several[0].startswith(("ipv4:", "ipv6:")):
        return ",".join(several)
    kinds = {_kind(one) for one in several}
    if len(kinds) > 1:
        raise ValueError(f"{addresses!r}: the addresses of one service are all of IPv4 or all of IPv6")
    return f"{kinds.pop()}:{','.join(several)}"


def channel_options() -> list[tuple[str, Any]]:
    """Options of a channel.

    Calls go round the addresses in turn; messages are as large as the services take them. A connection is given up after 80 s without
    a sign of life while a call is open, which a node that vanished needs to be noticed. Names are resolved again as soon as a connection
    is lost, at most every 5 s. UNAVAILABLE is retried shortly by gRPC itself.
    """
    service = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
    return [
        ("grpc.max_receive_message_length", MESSAGE_BYTES),
        ("grpc.max_send_message_length", MESSAGE_BYTES),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
        ("grpc.dns_min_time_between_resolutions_ms", _RESOLVE_AGAIN_MS),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(service)),
    ]


def _kind(address: str) -> str:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return f"ipv{ipaddress.ip_address(host).version}"
    except ValueError:
        raise ValueError(
            f"{address!r} is a name; several targets are addresses, as in 127.0.0.1:50051,127.0.0.1:50061, and one name with several "
            "addresses is dns:///name:port"
        ) from None


def _content(file: str | os.PathLike[str]) -> bytes | None:
    return Path(file).read_bytes() if file else None
