"""A throw-away authority, a fake cluster whose certificate it signed, and the cluster file that names both."""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import fake
import joust


def certificate(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey, authority: bool
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(minutes=5)).not_valid_after(now + datetime.timedelta(hours=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    return (builder if authority else builder.add_extension(names, critical=False)).sign(signer, hashes.SHA256())


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="session")
def authority() -> tuple[bytes, bytes, bytes]:
    """The authority's certificate, and a key and certificate of a server on this machine; all PEM."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    ca = certificate("test authority", ca_key, issuer, ca_key, authority=True)
    server = certificate("server", key, issuer, ca_key, authority=False)
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return pem(ca), private, pem(server)


@pytest.fixture
def credentials(authority: tuple[bytes, bytes, bytes]) -> grpc.ServerCredentials:
    _, key, server = authority
    return grpc.ssl_server_credentials([(key, server)])


@pytest.fixture
def state(credentials: grpc.ServerCredentials) -> Iterator[fake.State]:
    state = fake.State()
    server = fake.serve(state, credentials)
    yield state
    server.stop(grace=None).wait(timeout=10)


@pytest.fixture
def folder(state: fake.State, authority: tuple[bytes, bytes, bytes], tmp_path: Path) -> Path:
    """The folder of a cluster file as `joust up` writes it."""
    folder = tmp_path / ".joust"
    (folder / "tokens").mkdir(parents=True)
    (folder / "ca.pem").write_bytes(authority[0])
    (folder / "tokens" / "submit").write_text(f"{fake.TOKEN}\n")
    content = {
        "schema": 1,
        "coordinator": state.address,
        "ca": str(folder / "ca.pem"),
        "token_file": str(folder / "tokens" / "submit"),
    }
    (folder / "cluster.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def cluster(folder: Path) -> Iterator[joust.Cluster]:
    with joust.connect(folder) as cluster:
        yield cluster


@pytest.fixture
def run(cluster: joust.Cluster) -> joust.Run:
    """A run that trains."""
    return cluster.runs.start('schema = 1\nname = "from-the-file"\n', name="stories", by_hand=True)
