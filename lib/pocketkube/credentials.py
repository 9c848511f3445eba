"""The cluster's certificate authority, the API server's certificate, the administrator's token, the kubeconfig.

All of it is made once and kept in the state directory, so that a kubeconfig stays valid over restarts. Files are
readable by their owner alone.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import os
import secrets
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

_DAY = datetime.timedelta(days=1)
_RENEW_AFTER = 300 * 86400  # seconds; the API server's certificate is valid for 400 days
SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


@dataclass
class Credentials:
    """What a client needs to trust the API server, and to be trusted.

    Attributes:
        token: the administrator's bearer token.
        ca: the certificate authority, PEM.
        certificate: path of the API server's certificate and chain.
        key: path of its private key.
    """

    token: str
    ca: str
    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """For the HTTPS server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(["http/1.1"])
        return context

    def kubeconfig(self, name: str, server: str) -> str:
        """A kubeconfig (JSON, which is YAML) with one context, ``pocket-NAME``."""
        context = f"pocket-{name}"
        authority = base64.b64encode(self.ca.encode()).decode()
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": context,
                "clusters": [{"name": context, "cluster": {"server": server, "certificate-authority-data": authority}}],
                "users": [{"name": context, "user": {"token": self.token}}],
                "contexts": [{"name": context, "context": {"cluster": context, "user": context, "namespace": "default"}}],
                "preferences": {},
            },
            indent=2,
        )


def load_or_create(directory: Path, *, addresses: tuple[str, ...], names: tuple[str, ...] = ()) -> Credentials:
    """The credentials kept in ``directory``; what is missing there is made.

    Args:
        directory: a private directory, made if it isn't there.
        addresses: the IP addresses that the API server answers at.
        names: its DNS names, besides the usual ones.

    Raises:
        OSError: the directory can't be written.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    token_file, ca_file, ca_key_file = directory / "token", directory / "ca.crt", directory / "ca.key"
    certificate, key = directory / "apiserver.crt", directory / "apiserver.key"
    if not token_file.exists():
        write_private(token_file, secrets.token_urlsafe(32))
    fresh = all(path.exists() for path in (ca_file, ca_key_file, certificate, key)) and (
        time.time() - certificate.stat().st_mtime < _RENEW_AFTER
    )
    if not fresh:
        _issue(ca_file, ca_key_file, certificate, key, addresses, names)
    return Credentials(token_file.read_text().strip(), ca_file.read_text(), certificate, key)


def _issue(ca_file: Path, ca_key_file: Path, certificate: Path, key: Path, addresses, names) -> None:
    """Make the authority where there is none, and a new certificate for the API server."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def pem(private) -> str:
        encoding, style = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        return private.private_bytes(encoding, style, serialization.NoEncryption()).decode()

    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    def builder(subject, issuer, public, days):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)  # a clock that is set back a little must not break the lab
            .not_valid_after(now + days * _DAY)
        )

    now = datetime.datetime.now(datetime.timezone.utc)
    if ca_file.exists() and ca_key_file.exists():
        ca = x509.load_pem_x509_certificate(ca_file.read_bytes())
        ca_key = serialization.load_pem_private_key(ca_key_file.read_bytes(), None)
    else:
        ca_key = ec.generate_private_key(ec.SECP256R1())
        subject = name("kubernetes")
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        ca = (
            builder(subject, subject, ca_key.public_key(), 3650)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
            .sign(ca_key, hashes.SHA256())
        )
        write_private(ca_key_file, pem(ca_key))
        write_private(ca_file, ca.public_bytes(serialization.Encoding.PEM).decode())
    server_key = ec.generate_private_key(ec.SECP256R1())
    alternatives = [x509.DNSName(one) for one in (*SERVER_NAMES, *names)]
    alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    server = (
        builder(name("kube-apiserver"), ca.subject, server_key.public_key(), 400)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    write_private(key, pem(server_key))
    write_private(certificate, server.public_bytes(serialization.Encoding.PEM).decode())


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read (0600), whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
