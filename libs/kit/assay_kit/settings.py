"""Settings of a service: ASSAY_… environment variables, checked before anything starts."""

from __future__ import annotations

import difflib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from assay_kit.kafka_access import KafkaAccess
from assay_kit.tls import CertificateError, CertificateFolder

PREFIX = "ASSAY_"
SERVICES = ("cleaning", "reward", "policy", "training", "evaluation")


class ServiceSettings(BaseSettings):
    """What every service can be told. A service adds fields of its own, named `<service>_<what>`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", env_ignore_empty=True)

    grpc_host: str = "127.0.0.1"
    """Address the gRPC server listens on."""
    grpc_port: int = Field(default=0, ge=0, le=65535)
    """Port of the gRPC server; 0 takes a free one."""
    instance: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,200}$")
    """Name of this replica among its equals, the same after a restart; empty: one is made and kept in data_dir."""
    health_port: int | None = Field(default=None, ge=0, le=65535)
    """Port on grpc_host of a server with nothing but grpc.health.v1, never TLS; 0 takes a free one, unset opens none."""
    tls_dir: Path | None = None
    """Folder with tls.crt, tls.key and ca.crt: the gRPC server then demands client certificates of that CA, and peers are called with
    the same. The files are read again when they change. Unset: plaintext."""
    metrics_host: str = "127.0.0.1"
    """Address of the metrics page."""
    metrics_port: int = Field(default=0, ge=0, le=65535)
    """Port of the metrics page; 0 takes a free one."""
    grpc_max_message_bytes: int = Field(default=64 * 1024 * 1024, ge=1024)
    """Largest gRPC message taken or sent, in bytes."""
    grpc_max_connection_age_seconds: float = Field(default=300.0, gt=0)
    """Age at which a connection is closed politely, so that clients spread over new replicas."""
    kafka_bootstrap: str = ""
    """Comma-separated host:port of the Kafka brokers; empty leaves the Kafka door shut."""
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How the brokers are spoken to."""
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = "SCRAM-SHA-512"
    """How the user shows who it is, with SASL."""
    kafka_username: str = ""
    """User of the brokers, with SASL."""
    kafka_password: SecretStr = SecretStr("")
    """Password of kafka_username."""
    kafka_tls_dir: Path | None = None
    """Folder with ca.crt of the brokers and, where they ask for client certificates, user.crt and user.key. Unset: the machine's CAs."""
    kafka_create_topics: bool = False
    """Create missing topics at start; off where an operator makes them."""
    data_dir: Path = Path(".assay")
    """Folder for the service's own state."""
    database_url: str = ""
    """postgresql://… for jobs; empty keeps them in SQLite under data_dir."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Least severe log line that is written."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object a line, or text for people."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """Longest wait for calls in flight after SIGTERM."""
    threads: int = Field(default=1, ge=1, le=1024)
    """Threads of numerical libraries."""
    otlp_endpoint: str = ""
    """OTLP gRPC endpoint that traces are sent to; empty sends none."""
    cleaning_target: str = ""
    """host:port of the cleaning service."""
    reward_target: str = ""
    """host:port of the reward service."""
    policy_target: str = ""
    """host:port of the policy service."""
    training_target: str = ""
    """host:port of the training service."""
    evaluation_target: str = ""
    """host:port of the evaluation service."""

    @model_validator(mode="after")
    def _who_speaks_to_kafka(self) -> Self:
        if self.kafka_security_protocol.startswith("SASL") and not (self.kafka_username and self.kafka_password.get_secret_value()):
            raise ValueError(
                f"ASSAY_KAFKA_SECURITY_PROTOCOL={self.kafka_security_protocol} needs ASSAY_KAFKA_USERNAME and ASSAY_KAFKA_PASSWORD"
            )
        return self


T = TypeVar("T", bound=ServiceSettings)


def unknown_variables(cls: type[ServiceSettings], service: str, environment: Mapping[str, str]) -> list[str]:
    """Names in the environment that look like settings of `service` but are none.

    Variables of the other services are left alone: all five may share one environment.
    """
    known = {(PREFIX + name).upper() for name in cls.model_fields}
    prefix = f"{PREFIX}{service}_".upper()
    return sorted(name for name in environment if name.startswith(prefix) and name not in known)


def settings_or_complaint(cls: type[T], service: str, environment: Mapping[str, str]) -> T | str:
    """The settings in force, or one line that says what is wrong and what would be right."""
    known = sorted((PREFIX + name).upper() for name in cls.model_fields)
    unknown = unknown_variables(cls, service, environment)
    if unknown:
        near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.0)
        return f"{unknown[0]} is no setting of the {service} service; did you mean {near[0]}?"
    try:
        return cls()
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            return first["msg"].removeprefix("Value error, ")  # its input is all settings, the password too
        name = (PREFIX + str(first["loc"][0])).upper()
        return f"{name}={first.get('input')!r}: {first['msg']}"


def load_settings(cls: type[T], service: str, argv: Sequence[str]) -> T:
    """Reads the settings of a service from the environment.

    `--print-config` prints what is in force and exits 0, `--help` the settings there are; a bad value or an unknown
    variable exits 2 with one line on stderr, and so does a certificate that nothing can be served with.
    """
    if "--help" in argv or "-h" in argv:
        print(f"python -m assay_{service}: the {service} service. Settings are environment variables:\n")
        for name, field in cls.model_fields.items():
            print(f"  {(PREFIX + name).upper():45} {field.get_default(call_default_factory=True)!r}")
        print("\n  --print-config  print what is in force and exit")
        raise SystemExit(0)
    odd = [argument for argument in argv if argument != "--print-config"]
    if odd:
        print(f"assay-{service}: unknown argument {odd[0]!r}; settings are ASSAY_… environment variables, see --help", file=sys.stderr)
        raise SystemExit(2)
    settings = settings_or_complaint(cls, service, os.environ)
    if isinstance(settings, str):
        print(f"assay-{service}: {settings}", file=sys.stderr)
        raise SystemExit(2)
    if "--print-config" in argv:
        for name, value in settings.model_dump(mode="json").items():
            print(f"{(PREFIX + name).upper()}={_shown(name, value)}")
        raise SystemExit(0)
    if settings.tls_dir is not None:
        try:
            CertificateFolder(settings.tls_dir)
        except CertificateError as error:
            print(f"assay-{service}: ASSAY_TLS_DIR: {error.message}", file=sys.stderr)
            raise SystemExit(2) from None
    try:
        KafkaAccess.from_settings(settings).check()
    except CertificateError as error:
        print(f"assay-{service}: ASSAY_KAFKA_TLS_DIR: {error.message}", file=sys.stderr)
        raise SystemExit(2) from None
    return settings


def _shown(name: str, value: object) -> object:
    """As the environment would have it, without what is secret."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return json.dumps(value)
    if name.endswith("_url") and "@" in str(value):
        scheme, _, rest = str(value).partition("://")
        return f"{scheme}://***@{rest.rpartition('@')[2]}"
    return value
