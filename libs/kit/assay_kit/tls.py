"""TLS of a service: one folder with its certificate, key and authority, as cert-manager writes it, read again when it changes."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import grpc

from assay_kit.errors import FailedPrecondition

logger = logging.getLogger(__name__)

CERTIFICATE, KEY, AUTHORITY = "tls.crt", "tls.key", "ca.crt"
"""Names of the files in the folder."""
_READS = 5  # of a folder that is being written meanwhile

Stamp: TypeAlias = tuple[tuple[int, int, int], ...]


class CertificateError(FailedPrecondition):
    """The folder's files are not there, cannot be read, or do not fit together."""


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """What the folder holds, in PEM. The certificate is for the key, of the authority, and valid now."""

    certificate: bytes
    key: bytes
    authority: bytes


class CertificateFolder:
    """The folder and what was read from it last. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """Reads it.

        Raises:
            CertificateError: nothing can be served with what is there; says why.
        """
        self._folder = folder
        self._lock = threading.Lock()
        self.stamp, self.newest = _read(folder)

    def changed(self) -> Certificates | None:
        """What is there now, where it is another than was read last; None also where it is of no use, which is logged once."""
        with self._lock:
            try:
                if _stamp(self._folder) == self.stamp:
                    return None
                self.stamp, self.newest = _read(self._folder)
            except CertificateError as error:
                logger.error("%s; the certificate read before stays in use", error.message)
                self.stamp = _stamp_or_nothing(self._folder)
                return None
        logger.info("the certificate in %s has changed and is used for new connections", self._folder)
        return self.newest


def server_credentials(folder: CertificateFolder) -> grpc.ServerCredentials:
    """Credentials of a gRPC server whose clients show certificates of the authority; a change is used from the next connection on."""

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        changed = folder.changed()
        return None if changed is None else _configuration(changed)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(folder.newest),
        fetch,  # type: ignore[arg-type]  # None is for no change
        require_client_authentication=True,
    )


def https_context(folder: Path) -> ssl.SSLContext:
    """Context of an HTTPS server, which asks its clients for no certificate; a change is used from the next connection on.

    Raises:
        CertificateError: nothing can be served with what is there.
    """
    certificates = CertificateFolder(folder)
    context = _https_context(folder)

    def renew(connection: ssl.SSLObject, name: str | None, first: ssl.SSLContext) -> None:
        nonlocal context
        if certificates.changed() is not None:
            context = _https_context(folder)
        connection.context = context

    front = _https_context(folder)
    front.sni_callback = renew
    return front


def _https_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY)
    return context


def _configuration(certificates: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(certificates.key, certificates.certificate)], certificates.authority)


def _read(folder: Path) -> tuple[Stamp, Certificates]:
    """Reads the three files, all of one writing."""
    for _ in range(_READS):
        before = _stamp(folder)
        failure = _failure(folder)
        certificate, key, authority = (_bytes(folder / name) for name in (CERTIFICATE, KEY, AUTHORITY))
        if _stamp(folder) == before:
            if failure:
                raise CertificateError(failure)
            return before, Certificates(certificate=certificate, key=key, authority=authority)
    raise CertificateError(f"{folder} changes while it is read")


def _failure(folder: Path) -> str:
    """Why the files are of no use; empty where they are good: a service that calls itself with them is understood."""
    ends: list[tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]] = []
    for protocol in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.maximum_version = ssl.TLSVersion.TLSv1_2  # whose handshake ends on both sides with both certificates looked at
        try:
            context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password="")  # else an encrypted key is asked for at the terminal
        except (OSError, ValueError) as error:
            return f"{folder / CERTIFICATE} and {folder / KEY} are no certificate and its key: {reason_of(error)}"
        try:
            context.load_verify_locations(cafile=folder / AUTHORITY)
        except (OSError, ValueError) as error:
            return f"{folder / AUTHORITY} is no certificate of an authority: {reason_of(error)}"
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends.append((context.wrap_bio(incoming, outgoing, server_side=protocol is ssl.PROTOCOL_TLS_SERVER), incoming, outgoing))
    (server, to_server, from_server), (client, to_client, from_client) = ends
    try:
        for _ in range(4):  # flights there and back
            _advance(client.do_handshake)
            to_server.write(from_client.read())
            _advance(server.do_handshake)
            to_client.write(from_server.read())
    except ssl.SSLError as error:
        return f"{folder / CERTIFICATE} is of no use with {folder / AUTHORITY}: {reason_of(error)}"
    return ""


def _advance(handshake: Callable[[], None]) -> None:
    with contextlib.suppress(ssl.SSLWantReadError):  # the other side's turn
        handshake()


def reason_of(error: Exception) -> str:
    """What OpenSSL or the file system has against a file, in a few words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(f"{path} cannot be read: {error.strerror}") from error


def _stamp(folder: Path) -> Stamp:
    stamps = []
    for name in (CERTIFICATE, KEY, AUTHORITY):
        try:
            found = (folder / name).stat()
        except OSError as error:
            raise CertificateError(f"{folder / name} cannot be read: {error.strerror}") from error
        stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
    return tuple(stamps)


def _stamp_or_nothing(folder: Path) -> Stamp:
    try:
        return _stamp(folder)
    except CertificateError:
        return ()
