"""The keys and certificates of a local cluster.

There are three certificate authorities, so that a certificate for one purpose is of no use for another:

* `cluster` signs the API server's clients and the serving certificates;
* `etcd` signs etcd and its only client, the API server;
* `agent` signs the only client of the node agent's port, again the API server.

A pair is one PEM file with the key followed by the certificate. Every program here accepts it for both of its flags,
so a pair cannot be half written. The authorities' own certificates are `<authority>-ca.pem`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from moe_local.errors import LocalClusterError

LIFETIME = timedelta(days=3650)
LOOPBACK = IPv4Address("127.0.0.1")
API_SERVICE_ADDRESS = IPv4Address("10.0.0.1")
"""First address of the Services' range, which pods know as `kubernetes.default.svc`."""

NODE_NAME = "local"
NODE_USER = f"system:node:{NODE_NAME}"


@dataclass(frozen=True)
class Identity:
    """One pair to issue: for whom, by which authority, and for which addresses."""

    file: str
    authority: str
    common_name: str
    organization: str = ""
    dns_names: tuple[str, ...] = ("localhost",)
    addresses: tuple[IPv4Address, ...] = (LOOPBACK,)
    serves: bool = False
    calls: bool = False


IDENTITIES = (
    Identity("etcd", "etcd", "etcd", serves=True, calls=True),
    Identity("apiserver-to-etcd", "etcd", "kube-apiserver", calls=True),
    Identity("apiserver-to-agent", "agent", "kube-apiserver", calls=True),
    Identity(
        "apiserver",
        "cluster",
        "kube-apiserver",
        dns_names=(
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ),
        addresses=(LOOPBACK, API_SERVICE_ADDRESS),
        serves=True,
    ),
    Identity("serving", "cluster", "kube-components", serves=True),
    Identity("agent-serving", "cluster", NODE_USER, dns_names=("localhost", NODE_NAME), serves=True),
    Identity("admin", "cluster", "moe-local-admin", "system:masters", calls=True),
    Identity("kube-controller-manager", "cluster", "system:kube-controller-manager", calls=True),
    Identity("kube-scheduler", "cluster", "system:kube-scheduler", calls=True),
    Identity("agent", "cluster", NODE_USER, "system:nodes", calls=True),
)
AUTHORITIES = ("cluster", "etcd", "agent")
SERVICE_ACCOUNTS = "service-accounts.pem"


@dataclass(frozen=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_certificates(folder: Path, *, now: datetime | None = None) -> None:
    """Make every key and certificate in `folder` if they do not exist; the folder appears as a whole or not at all.

    Raises LocalClusterError if existing ones have expired.
    """
    now = now or datetime.now(UTC)
    if folder.exists():
        _check_not_expired(folder, now)
        return
    temporary = Path(tempfile.mkdtemp(prefix=".certificates-", dir=folder.parent))
    try:
        _write_all(temporary, now)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_all(folder: Path, now: datetime) -> None:
    authorities = {name: _make_authority(name, now) for name in AUTHORITIES}
    for name, authority in authorities.items():
        _write(folder / f"{name}-ca.pem", _pem(authority.certificate))
    for identity in IDENTITIES:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _issue(identity, key, authorities[identity.authority], now)
        _write(folder / f"{identity.file}.pem", _pem(key) + _pem(certificate))
    _write(folder / SERVICE_ACCOUNTS, _pem(ec.generate_private_key(ec.SECP256R1())))


def _make_authority(name: str, now: datetime) -> _Authority:
    """A self-signed authority. Its key is never written to disk, so nobody can sign with it later."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"moe-local-{name}")])
    certificate = (
        _builder(subject, subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _Authority(certificate, key)


def _issue(
    identity: Identity, key: ec.EllipticCurvePrivateKey, authority: _Authority, now: datetime
) -> x509.Certificate:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, identity.common_name)]
    if identity.organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.organization))
    uses = [ExtendedKeyUsageOID.SERVER_AUTH] * identity.serves + [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ] * identity.calls
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in identity.dns_names]
    names += [x509.IPAddress(address) for address in identity.addresses]
    builder = (
        _builder(x509.Name(attributes), authority.certificate.subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
    )
    if identity.serves:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of a laptop and its virtual machine may differ
        .not_valid_after(now + LIFETIME)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(thing: x509.Certificate | ec.EllipticCurvePrivateKey) -> bytes:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _check_not_expired(folder: Path, now: datetime) -> None:
    expires = x509.load_pem_x509_certificate((folder / "cluster-ca.pem").read_bytes()).not_valid_after_utc
    if now > expires:
        raise LocalClusterError(
            f"the cluster's certificates in {folder} expired on {expires:%Y-%m-%d}",
            fix="remove the cluster and its data (`moectl local down --delete`) and start it again",
        )
