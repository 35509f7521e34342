"""Which cluster is called, with what certificate and token."""

import json
import os
from pathlib import Path

import grpc
import pytest

import fake
import joust
from joust._settings import Settings, Token


def asks(cluster: joust.Cluster) -> None:
    with cluster:
        assert cluster.runs.list() == []


def test_the_folder_that_is_named_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOUST_CLUSTER", "/nowhere")
    asks(joust.connect(folder))
    asks(joust.connect(folder / "cluster.json"))


def test_the_variable_names_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOUST_CLUSTER", str(folder))
    asks(joust.connect())


def test_the_nearest_folder_above_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOUST_CLUSTER", raising=False)
    below = folder.parent / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    asks(joust.connect())


def test_paths_start_from_the_cluster_file(folder: Path) -> None:
    content = json.loads((folder / "cluster.json").read_text())
    (folder / "cluster.json").write_text(json.dumps(content | {"ca": "ca.pem", "token_file": "tokens/submit"}))
    asks(joust.connect(folder))


def test_address_and_token_can_be_passed(folder: Path, state: fake.State) -> None:
    ca = folder / "ca.pem"
    asks(joust.connect(address=state.address, ca=ca, token=fake.TOKEN))
    asks(joust.connect(address=state.address, ca=ca, token_file=folder / "tokens" / "submit"))
    host = state.address.replace("127.0.0.1", "localhost").removeprefix("https://")
    asks(joust.connect(address=host, ca=str(ca), token=fake.TOKEN))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"schema": 2}', "schema is 2, expected 1"),
        ('{"schema": 1}', "coordinator is None, expected a text"),
        ("[]", "schema is None, expected 1"),
        ("{", "cannot be read"),
        ('{"schema": 1, "coordinator": "https://localhost"}', "expected https://HOST:PORT"),
        ('{"schema": 1, "coordinator": "https://localhost:1", "ca": "/none"}', "PEM file /none cannot be read: No such file"),
    ],
)
def test_a_cluster_file_that_cannot_be_used_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "cluster.json").write_text(content)
    with pytest.raises(joust.ConfigError, match=message):
        joust.connect(tmp_path)


def test_without_a_cluster_file_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOUST_CLUSTER", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(joust.ConfigError, match=r"start a cluster with `joust up`"):
        joust.connect()


def test_a_server_of_another_authority_is_not_called(state: fake.State, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    other.write_bytes((folder / "ca.pem").read_bytes().replace(b"M", b"N", 1))
    for ca in (other, None):
        with joust.connect(address=state.address, ca=ca, token=fake.TOKEN, timeout=2.0) as cluster, pytest.raises(joust.Error) as failed:
            cluster.runs.list()
        assert failed.value.code is grpc.StatusCode.UNAVAILABLE
    assert state.calls == []


def test_a_client_certificate_is_shown_where_it_is_wanted(
    authority: tuple[bytes, bytes, bytes], folder: Path, tmp_path: Path, state: fake.State
) -> None:
    ca, key, certificate = authority
    strict = fake.State()
    server = fake.serve(strict, grpc.ssl_server_credentials([(key, certificate)], ca, require_client_auth=True))
    files = {"client_cert": tmp_path / "client.pem", "client_key": tmp_path / "client.key"}
    files["client_cert"].write_bytes(certificate)
    files["client_key"].write_bytes(key)
    asks(joust.connect(folder, address=strict.address, **files))
    with joust.connect(folder, address=strict.address) as cluster, pytest.raises(joust.Error):
        cluster.runs.list()
    with pytest.raises(joust.ConfigError, match="belong together"):
        joust.connect(folder, client_cert=files["client_cert"])
    server.stop(grace=None).wait(timeout=10)


def test_an_exchanged_token_is_used_from_the_next_call_on(folder: Path, state: fake.State) -> None:
    with joust.connect(folder) as cluster:
        cluster.runs.list()
        state.token = "new"
        with pytest.raises(joust.Error, match="TOKEN_UNKNOWN"):
            cluster.runs.list()
        (folder / "tokens" / "submit").write_text("new")
        cluster.runs.list()
        os.truncate(folder / "tokens" / "submit", 0)
        with pytest.raises(joust.ConfigError, match="is empty; put the token in it"):
            cluster.runs.list()


def test_a_token_never_goes_out_in_the_clear() -> None:
    with pytest.raises(joust.ConfigError, match="in the clear"):
        joust.connect(address="http://example.org:7700", token="x")
    for here in ("http://127.0.0.1:7700", "http://localhost:7700", "http://[::1]:7700"):
        joust.connect(address=here, token="x").close()


def test_one_token_is_enough() -> None:
    with pytest.raises(joust.ConfigError, match="both passed"):
        joust.connect(address="https://localhost:1", token="x", token_file="y")


def test_a_token_is_not_in_texts() -> None:
    settings = Settings("https://localhost:1", token=Token("hidden"))
    assert "hidden" not in repr(settings)
