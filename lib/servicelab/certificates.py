"""Keys and certificates for the TLS lesson: made with ``cryptography``, described for the certificate card.

Three things are made here: self-signed certificates (their own authority), an authority of one's own, and certificates that
such an authority signs. The failures that a learner should have seen once (a wrong name, an authority nobody knows, a date
that has passed) are ordinary certificates with an unlucky argument.

Example:
    >>> pair = self_signed("my-nginx", names=["my-nginx", "my-nginx.default.svc.cluster.local"])
    >>> describe(pair.certificate).covers("my-nginx")
    True

Sources: RFC 5280 (the certificate), RFC 9525 (which name must match: subjectAltName only), RFC 6761 (names such as localhost),
Kubernetes documentation "Connecting Applications with Services", section "Securing the Service".
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_UTC = datetime.timezone.utc  # datetime.UTC came with Python 3.11, and 3.10 is supported


@dataclass(frozen=True)
class KeyPair:
    """A certificate and its private key, both as PEM bytes.

    Attributes:
        certificate: the certificate, PEM.
        key: the private key, PKCS #8 PEM, unencrypted (a server must be able to read it without a person).
    """

    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        """Name the certificate and keep the key out of every notebook output and traceback."""
        return f"KeyPair(certificate of {describe(self.certificate).subject!r}, key not shown)"

    def write(self, directory: str | os.PathLike[str], name: str = "nginx") -> tuple[Path, Path]:
        """Write ``NAME.crt`` and ``NAME.key`` (mode 0600) into `directory`, replacing older ones.

        Returns:
            The paths of certificate and key.
        """
        crt, key = Path(directory) / f"{name}.crt", Path(directory) / f"{name}.key"
        for path, data, mode in ((crt, self.certificate, 0o644), (key, self.key, 0o600)):
            path.unlink(missing_ok=True)  # an older file may have wider permissions, which os.open would keep
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                file.write(data)
        return crt, key

    def secret(self, name: str, namespace: str | None = None) -> dict:
        """Give the ``kubernetes.io/tls`` Secret that holds this pair, as `kubectl create secret tls` makes it."""
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        data = {"tls.crt": base64.b64encode(self.certificate).decode(), "tls.key": base64.b64encode(self.key).decode()}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data}


@dataclass(frozen=True)
class Description:
    """What a certificate says, in the words of the certificate card.

    Attributes:
        subject: whom it is for, for instance ``CN=my-nginx,O=my-nginx`` (RFC 4514 order reversed: as written in the certificate).
        issuer: who signed it, in the same form.
        common_name: the subject's CN or ``""``.
        names: the DNS names of the subjectAltName extension: the only ones that clients look at today.
        addresses: the IP addresses of the same extension.
        not_before, not_after: its validity, timezone-aware UTC.
        serial: its serial number, hexadecimal.
        key: the kind of its public key, for instance ``RSA 2048 bits``.
        fingerprint: SHA-256 of the DER form, hexadecimal with colons, as ``openssl x509 -fingerprint -sha256`` prints it.
        self_signed: whether its own key signed it (verified, not only issuer == subject).
        is_authority: whether basicConstraints lets it sign others.
    """

    subject: str
    issuer: str
    common_name: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    not_before: datetime.datetime
    not_after: datetime.datetime
    serial: str
    key: str
    fingerprint: str
    self_signed: bool
    is_authority: bool

    def covers(self, name: str) -> bool:
        """Tell whether a client that asked for `name` (a DNS name or an IP address) accepts this certificate's names.

        Follows RFC 9525: the subject's CN is never consulted, a wildcard stands for exactly one left-most label, and an
        address matches only an iPAddress entry.
        """
        try:
            return str(ipaddress.ip_address(name)) in self.addresses
        except ValueError:
            pass  # not an address, so a DNS name
        wanted = name.lower().rstrip(".")
        for pattern in (entry.lower().rstrip(".") for entry in self.names):
            if pattern == wanted:
                return True
            if pattern.startswith("*.") and "." in wanted and wanted.split(".", 1)[1] == pattern[2:]:
                return True
        return False

    def state(self, at: datetime.datetime | None = None) -> str:
        """Say ``valid``, ``expired`` or ``not yet valid`` at a moment (default: now)."""
        at = at or datetime.datetime.now(_UTC)
        if at < self.not_before:
            return "not yet valid"
        return "expired" if at > self.not_after else "valid"

    def text(self) -> str:
        """The card as plain text: one line for each thing a client looks at."""
        names = [*(f"DNS:{n}" for n in self.names), *(f"IP:{a}" for a in self.addresses)]
        signed = "itself (self-signed)" if self.self_signed else self.issuer
        rows = [
            ("for", self.subject or "(empty)"),
            ("names", ", ".join(names) or "none: most clients of today find no name to compare"),
            ("signed by", signed),
            ("valid", f"{self.not_before:%Y-%m-%d %H:%M} to {self.not_after:%Y-%m-%d %H:%M} UTC: {self.state()}"),
            ("key", self.key),
            ("may sign", "yes, it is an authority" if self.is_authority else "no"),
            ("sha256", self.fingerprint),
        ]
        return "\n".join(f"{label + ':':<11}{value}" for label, value in rows)

    def __str__(self) -> str:
        """The same as `text()`."""
        return self.text()


def self_signed(
    common_name: str,
    names: Iterable[str] | None = None,
    *,
    days: float = 365,
    starts: datetime.datetime | None = None,
    organization: str | None = None,
    key_type: str = "rsa",
) -> KeyPair:
    """Make a key and a certificate that it signs itself.

    Args:
        common_name: the subject's CN.
        names: DNS names and IP addresses for subjectAltName; None means `common_name` alone, an empty list no extension at all
            (what the document's command makes).
        days: how long it is valid, from `starts`.
        starts: the beginning of its validity, UTC; default one hour ago, so that a clock that is behind does no harm.
        organization: the subject's O, if any.
        key_type: ``"rsa"`` (2048 bits) or ``"ec"`` (P-256, quicker to make).

    Raises:
        ValueError: for a name that is neither an address nor a DNS name, a key type that isn't known, or days that aren't positive.
    """
    key = _new_key(key_type)
    subject = _subject(common_name, organization)
    builder = _builder(subject, subject, key.public_key(), days, starts, names=[common_name] if names is None else names)
    # Like openssl's default: a self-signed leaf is its own trust anchor, and some clients insist on CA:TRUE for one.
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return _pair(builder.sign(key, hashes.SHA256()), key)


def expired(common_name: str, names: Iterable[str] | None = None, *, days_ago: float = 1) -> KeyPair:
    """Make a self-signed certificate, right in all but its date: it was valid for thirty days and ended `days_ago`."""
    starts = datetime.datetime.now(_UTC) - datetime.timedelta(days=30 + days_ago)
    return self_signed(common_name, names, days=30, starts=starts)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of one's own: clients trust its certificate once, and with it every certificate it signs.

    Example:
        >>> ca = Authority.create("Lesson CA")
        >>> describe(ca.sign("my-nginx").certificate).issuer
        'CN=Lesson CA'
    """

    pair: KeyPair

    @classmethod
    def create(cls, common_name: str, *, days: float = 3650) -> Authority:
        """Make an authority with a P-256 key that may sign leaf certificates, and no further authorities."""
        key = _new_key("ec")
        subject = _subject(common_name, None)
        builder = _builder(subject, subject, key.public_key(), days, None, names=[])
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        return cls(_pair(builder.sign(key, hashes.SHA256()), key))

    @property
    def certificate(self) -> bytes:
        """The authority's certificate, PEM: what goes to clients (``curl --cacert``). It is no secret."""
        return self.pair.certificate

    def sign(
        self, common_name: str, names: Iterable[str] | None = None, *, days: float = 90, starts: datetime.datetime | None = None
    ) -> KeyPair:
        """Make a key and a server certificate signed by this authority; the arguments are those of `self_signed`."""
        ca_key = serialization.load_pem_private_key(self.pair.key, password=None)
        ca = x509.load_pem_x509_certificate(self.pair.certificate)
        key = _new_key("ec")
        subject = _subject(common_name, None)
        builder = _builder(subject, ca.subject, key.public_key(), days, starts, names=[common_name] if names is None else names)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(digital_signature=True), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        return _pair(builder.sign(ca_key, hashes.SHA256()), key)


def describe(certificate: bytes | str | Mapping) -> Description:
    """Read a certificate.

    Args:
        certificate: PEM (bytes or str; the first certificate of a chain counts), or a Secret as an API object that holds one
            under ``tls.crt`` (or any other key that ends with ``.crt`` or ``.pem``).

    Raises:
        ValueError: if there is no certificate in it; the text says what was found instead.
    """
    pem = _pem_of(certificate)
    try:
        cert = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        start = pem.strip().splitlines()[0][:40].decode(errors="replace") if pem.strip() else "nothing"
        raise ValueError(f"not a certificate in PEM form: it begins with {start!r}, not '-----BEGIN CERTIFICATE-----' ({error})") from error
    try:
        san = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = tuple(san.get_values_for_type(x509.DNSName))
        addresses = tuple(str(a) for a in san.get_values_for_type(x509.IPAddress))
    except x509.ExtensionNotFound:
        names, addresses = (), ()
    try:
        is_authority = cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    own = issued_by(pem, pem)
    common = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    fingerprint = cert.fingerprint(hashes.SHA256()).hex().upper()
    return Description(
        subject=_name_text(cert.subject),
        issuer=_name_text(cert.issuer),
        common_name=str(common[0].value) if common else "",
        names=names,
        addresses=addresses,
        not_before=cert.not_valid_before_utc,
        not_after=cert.not_valid_after_utc,
        serial=f"{cert.serial_number:x}",
        key=_key_text(cert.public_key()),
        fingerprint=":".join(fingerprint[i : i + 2] for i in range(0, len(fingerprint), 2)),
        self_signed=own,
        is_authority=is_authority,
    )


def belong_together(certificate: bytes, key: bytes) -> bool:
    """Tell whether a private key is the one that a certificate was made for.

    Raises:
        ValueError: if either of them can't be read.
    """
    private = serialization.load_pem_private_key(key, password=None)
    return x509.load_pem_x509_certificate(certificate).public_key() == private.public_key()


def issued_by(certificate: bytes, authority: bytes) -> bool:
    """Tell whether an authority's key has signed a certificate (one step, no chain, no dates).

    Raises:
        ValueError: if either of them can't be read.
    """
    leaf, ca = x509.load_pem_x509_certificate(certificate), x509.load_pem_x509_certificate(authority)
    try:
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):  # another issuer's name, another kind of key, another key
        return False
    return True


def private_directory(lab) -> Path:
    """Give a directory that nobody else can read, and set ``$CERTS`` to it for the shell commands of a lesson.

    The same cluster and namespace give the same directory again, so that a kernel restart finds its keys. It is made below
    ``$XDG_RUNTIME_DIR`` (kept in memory by most systems), or else below the system's directory for temporary files.

    Args:
        lab: what `connect()` gave.

    Raises:
        PermissionError: if the directory is there already and is another user's, a link, or readable by others:
            keys are never written to a place that somebody else has prepared.
    """
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    if not base.is_dir() or not os.access(base, os.W_OK):
        base = Path(tempfile.gettempdir())
    name = "".join(c if c.isalnum() else "-" for c in f"{lab.cluster.name}-{lab.namespace}")
    path = base / f"servicelab-{os.getuid()}-{name}"
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        info = path.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid() or info.st_mode & 0o077:
            raise PermissionError(
                f"{path} is there already, and is not a directory that only you can read. Keys are not written there: "
                "remove it, or set XDG_RUNTIME_DIR to a directory of your own."
            ) from None
    os.environ["CERTS"] = str(path)
    return path


def remove_private_directory(lab) -> None:
    """Remove what `private_directory` made, with the keys in it; nothing happens if it is gone already."""
    shutil.rmtree(private_directory(lab))
    os.environ.pop("CERTS", None)


def _new_key(key_type: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if key_type == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if key_type == "ec":
        return ec.generate_private_key(ec.SECP256R1())
    raise ValueError(f"key_type is {key_type!r}: only 'rsa' and 'ec' are known")


def _subject(common_name: str, organization: str | None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def _builder(subject, issuer, public_key, days, starts, *, names) -> x509.CertificateBuilder:
    if days <= 0:
        raise ValueError(f"days is {days}: a certificate must be valid for some time; use expired() for one that has ended")
    starts = starts or datetime.datetime.now(_UTC) - datetime.timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(starts)
        .not_valid_after(starts + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    entries = [_general_name(name) for name in names]
    return builder.add_extension(x509.SubjectAlternativeName(entries), critical=False) if entries else builder


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass  # not an address, so a DNS name
    labels = name.removeprefix("*.").split(".")
    if not all(label and len(label) <= 63 and label.replace("-", "").isalnum() and label.isascii() for label in labels):
        raise ValueError(f"{name!r} is neither an IP address nor a DNS name: a certificate takes names such as my-nginx.default.svc")
    return x509.DNSName(name)


def _usage(**true) -> x509.KeyUsage:
    fields = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{field: true.get(field, False) for field in fields.split()})


def _pair(cert: x509.Certificate, key) -> KeyPair:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return KeyPair(cert.public_bytes(serialization.Encoding.PEM), pem)


def _pem_of(source: bytes | str | Mapping) -> bytes:
    if isinstance(source, Mapping):
        data = source.get("data") or {}
        for key in ("tls.crt", *sorted(k for k in data if k.endswith((".crt", ".pem")))):
            if key in data:
                return base64.b64decode(data[key])
        name = source.get("metadata", {}).get("name", "?")
        raise ValueError(f"Secret {name} holds no certificate: its keys are {', '.join(sorted(data)) or 'none'}, and tls.crt is looked for")
    return source.encode() if isinstance(source, str) else bytes(source)


def _name_text(name: x509.Name) -> str:
    return ",".join(f"{attribute.rfc4514_attribute_name}={attribute.value}" for attribute in name)


def _key_text(key) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size} bits"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"elliptic curve {key.curve.name}"
    return type(key).__name__.lstrip("_").removesuffix("PublicKey")
