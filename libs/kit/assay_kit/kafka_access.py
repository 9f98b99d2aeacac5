"""How the brokers are spoken to, and as whom."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assay_kit.tls import CertificateError, reason_of

if TYPE_CHECKING:
    from assay_kit.settings import ServiceSettings

AUTHORITY, CERTIFICATE, KEY = "ca.crt", "user.crt", "user.key"
"""Names of the files in the folder, as Strimzi's secrets have them."""


@dataclass(frozen=True, kw_only=True)
class KafkaAccess:
    """TLS and user; by default neither."""

    protocol: str = "PLAINTEXT"
    """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
    mechanism: str = "SCRAM-SHA-512"
    """Of SASL."""
    username: str = ""
    password: str = field(default="", repr=False)
    tls_dir: Path | None = None
    """Folder with the brokers' ca.crt and, for a client certificate, user.crt and user.key; None: this machine's authorities."""

    @classmethod
    def from_settings(cls, settings: ServiceSettings) -> KafkaAccess:
        """As the settings have it."""
        return cls(
            protocol=settings.kafka_security_protocol,
            mechanism=settings.kafka_sasl_mechanism,
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            tls_dir=settings.kafka_tls_dir,
        )

    @property
    def who(self) -> str:
        """Who asks, for messages."""
        if self.protocol.startswith("SASL"):
            return f"user {self.username}"
        return "who shows this certificate" if "ssl_certfile" in self.options() else "a client without a user"

    def options(self) -> dict[str, Any]:
        """The options of a kafka-python client. It reads the files again for each connection, so that a renewed one is used by itself."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        if self.protocol.endswith("SSL") and self.tls_dir is not None:
            options["ssl_cafile"] = str(self.tls_dir / AUTHORITY)
            if (self.tls_dir / CERTIFICATE).exists():
                options |= {"ssl_certfile": str(self.tls_dir / CERTIFICATE), "ssl_keyfile": str(self.tls_dir / KEY)}
        return options

    def check(self) -> None:
        """Looks at the files.

        Raises:
            CertificateError: nothing can be trusted or shown with them; says why.
        """
        options = self.options()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if "ssl_cafile" in options:
                context.load_verify_locations(options["ssl_cafile"])
        except (OSError, ValueError) as error:
            raise CertificateError(f"{options['ssl_cafile']} is no certificate of an authority: {reason_of(error)}") from error
        try:
            if "ssl_certfile" in options:
                context.load_cert_chain(options["ssl_certfile"], options["ssl_keyfile"], password="")
        except (OSError, ValueError) as error:
            files = f"{options['ssl_certfile']} and {options['ssl_keyfile']}"
            raise CertificateError(f"{files} are no certificate and its key: {reason_of(error)}") from error
