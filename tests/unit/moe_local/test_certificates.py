"""Keys and certificates: three doors, each with its own authority; whole or not there at all."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import NameOID

from moe_local import certificates
from moe_local.certificates import AUTHORITIES, IDENTITIES, LIFETIME, Identity, ensure_certificates
from moe_local.errors import LocalClusterError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster") / "certificates"
    ensure_certificates(folder)
    return folder


def load(path: Path) -> x509.Certificate:
    text = path.read_bytes()
    return x509.load_pem_x509_certificate(text[text.index(b"-----BEGIN CERTIFICATE") :])


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.file)
def test_each_pair_is_signed_by_its_own_authority_and_by_no_other(folder: Path, identity: Identity):
    certificate = load(folder / f"{identity.file}.pem")
    certificate.verify_directly_issued_by(load(folder / f"{identity.authority}-ca.pem"))
    for other in set(AUTHORITIES) - {identity.authority}:
        with pytest.raises(ValueError, match="match"):
            certificate.verify_directly_issued_by(load(folder / f"{other}-ca.pem"))


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.file)
def test_the_key_in_a_pair_is_that_of_its_certificate(folder: Path, identity: Identity):
    path = folder / f"{identity.file}.pem"
    key = load_pem_private_key(path.read_bytes(), None)
    assert key.public_key() == load(path).public_key()


@pytest.mark.parametrize("identity", IDENTITIES, ids=lambda identity: identity.file)
def test_a_pair_that_only_calls_cannot_serve_and_the_other_way_round(folder: Path, identity: Identity):
    usage = (
        load(folder / f"{identity.file}.pem").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    )
    oids = x509.oid.ExtendedKeyUsageOID
    assert (oids.SERVER_AUTH in usage) == identity.serves
    assert (oids.CLIENT_AUTH in usage) == identity.calls


def test_only_the_administrator_is_in_the_group_that_may_do_everything(folder: Path):
    groups = {
        identity.file: [
            attribute.value
            for attribute in load(folder / f"{identity.file}.pem").subject.get_attributes_for_oid(
                NameOID.ORGANIZATION_NAME
            )
        ]
        for identity in IDENTITIES
    }
    assert [name for name, group in groups.items() if "system:masters" in group] == ["admin"]
    assert groups["agent"] == ["system:nodes"]


def test_no_authority_key_is_kept(folder: Path):
    for authority in AUTHORITIES:
        assert b"PRIVATE" not in (folder / f"{authority}-ca.pem").read_bytes()


def test_every_file_is_for_its_owner_only(folder: Path):
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_asking_again_changes_nothing(folder: Path):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ensure_certificates(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_an_interruption_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(certificates, "_issue", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ensure_certificates(tmp_path / "certificates")
    assert list(tmp_path.iterdir()) == []


def test_expired_certificates_are_named_with_the_way_out(folder: Path):
    later = datetime.now(UTC) + LIFETIME + timedelta(days=1)
    with pytest.raises(LocalClusterError, match="--delete"):
        ensure_certificates(folder, now=later)
