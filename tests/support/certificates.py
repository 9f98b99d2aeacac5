"""Certificates for tests: an authority of their own, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Authority:
    """Signs certificates for 127.0.0.1 and localhost, for servers and clients alike."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        builder = _builder(self._name, self._name, self._key.public_key(), days=2)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.certificate = _pem(builder.sign(self._key, hashes.SHA256()))

    def signed(self, name: str, *, days: int = 1) -> tuple[bytes, bytes]:
        """Certificate and key of a name, in PEM; negative days: it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_named(name), self._name, key.public_key(), days=days)
        addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
        builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        builder = builder.add_extension(usage, critical=False)
        return _pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key)

    def write(self, folder: Path, name: str = "service", *, days: int = 1) -> Path:
        """Writes tls.crt, tls.key and ca.crt as cert-manager mounts them: files behind one link, which is exchanged at once."""
        certificate, key = self.signed(name, days=days)
        folder.mkdir(parents=True, exist_ok=True)
        data = folder / f"..{os.urandom(6).hex()}"
        data.mkdir()
        for file, content in (("tls.crt", certificate), ("tls.key", key), ("ca.crt", self.certificate)):
            (data / file).write_bytes(content)
            if not (folder / file).is_symlink():
                (folder / file).symlink_to(Path("..data") / file)
        link = folder / "..data_tmp"
        link.symlink_to(data.name)
        link.replace(folder / "..data")
        return folder


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, *, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    begin = now - datetime.timedelta(days=3)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(begin).not_valid_after(now + datetime.timedelta(days=days))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
