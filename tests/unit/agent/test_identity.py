"""The node's key at rest, its papers, and the settings: what is refused, and with which remedy."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pytest

from hypermesh import falcon, keyfile
from hypermesh.v1 import trust_pb2
from hypermesh_agent.config import ConfigError, add_run_flags, add_survey_flags, agent_config, parse_reserve
from hypermesh_agent.identity import IdentityError, NodeIdentity, Papers, TlsIdentity
from hypermesh_agent.keys import node_key
from hypermesh_agent.reserves import Reserve

HALF = bytes(range(32))


def test_the_key_is_made_once_and_found_again(tmp_path: Path) -> None:
    first = node_key(tmp_path / "keys", HALF)
    assert node_key(tmp_path / "keys", HALF).public == first.public
    files = {path.name: path for path in (tmp_path / "keys").iterdir()}
    assert sorted(files) == ["local", "node"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in files.values())
    assert (tmp_path / "keys").stat().st_mode & 0o077 == 0
    assert first.secret not in files["node"].read_bytes()
    assert first.secret[100:132] not in files["node"].read_bytes()


def test_another_clusters_half_opens_nothing_and_destroys_nothing(tmp_path: Path) -> None:
    node_key(tmp_path, HALF)
    before = (tmp_path / "node").read_bytes()
    with pytest.raises(IdentityError, match="restore both secrets"):
        node_key(tmp_path, bytes(32))
    assert (tmp_path / "node").read_bytes() == before


def test_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    node_key(tmp_path, HALF)
    blob = bytearray((tmp_path / "node").read_bytes())
    blob[len(blob) // 2] ^= 1
    (tmp_path / "node").write_bytes(blob)
    with pytest.raises(IdentityError, match="key file"):
        node_key(tmp_path, HALF)


def test_a_lost_local_half_is_not_replaced(tmp_path: Path) -> None:
    node_key(tmp_path, HALF)
    (tmp_path / "local").unlink()
    with pytest.raises(IdentityError, match="restore it from a backup"):
        node_key(tmp_path, HALF)
    assert not (tmp_path / "local").exists()


def test_a_key_alone_without_its_cluster_half_is_short(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="32 random ones"):
        node_key(tmp_path, b"short")
    assert not (tmp_path / "node").exists()


def papers() -> Papers:
    body = trust_pb2.CertificateBody(subject="node1")
    certificate = trust_pb2.Certificate(body=body.SerializeToString(), signature=os.urandom(10))
    return Papers(falcon.generate(), certificate, TlsIdentity(b"key", b"chain", b"root"), 1e9)


def test_papers_survive_the_pipe_and_do_not_show_secrets() -> None:
    sent = papers()
    received = Papers.decode(sent.encode())
    assert received == sent
    assert received.ends_at == trust_pb2.CertificateBody.FromString(sent.certificate.body).not_after
    assert "key" not in repr(received).replace("keypair", "")
    assert sent.encode().count("\n") == 0


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"renewAt": 1, "keypair": "AAAA"}', b"\xff", '{"renewAt": []}']
)
def test_other_lines_are_no_papers(text: str | bytes) -> None:
    with pytest.raises(IdentityError, match="no papers"):
        Papers.decode(text)


def test_a_certificate_of_another_key_is_not_ours() -> None:
    mine = papers()
    with pytest.raises(IdentityError, match="another key"):
        NodeIdentity.certified("node1", "::1", mine.keypair, mine.certificate)


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_run_flags(parser, {"NODE_NAME": "n", "HYPERMESH_POOL": "/pool"})
    add_survey_flags(parser, {"HYPERMESH_RESERVED_MEMORY": "10%"})
    return parser.parse_args(flags)


def test_settings_come_from_flags_then_environment_then_defaults() -> None:
    config = agent_config(parsed("--plot-k", "20"))
    assert config.node_name == "n"
    assert config.plot_k == 20
    assert config.survey.reserved_memory == Reserve(percent=10)
    assert config.survey.reserved_storage == Reserve(amount=10 << 30)
    assert config.state == Path("/var/lib/hypermesh")


@pytest.mark.parametrize(
    ("flags", "remedy"),
    [
        (["--plot-k", "7"], "--plot-k '7': write a whole number from 18 to 40"),
        (["--metrics-port", "-1"], "whole number from 0 to 65535"),
        (["--privacy-level", "Open"], "choose one of Private"),
        (["--reserved-memory", "lots"], "write 500m, 2, 512Mi or 1Gi, or a share such as 10%"),
        (["--reserved-cpu", "200%"], "a share such as 10%"),
        (["--node-ip", "192.0.2.1"], "(NODE_IP) holds no IPv6 address: HyperMesh needs nodes with an IPv6 InternalIP"),
        (["--node-ip", "::ffff:192.0.2.1"], "NODE_IP from the field status.hostIPs"),
        (["--node-ip", "::"], "holds no IPv6 address"),
        (["--node-ip", "node1"], "--node-ip 'node1'"),
    ],
)
def test_wrong_settings_name_the_remedy(flags: list[str], remedy: str) -> None:
    with pytest.raises(ConfigError) as refused:
        agent_config(parsed(*flags))
    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    "given", ["2001:db8::7", "192.0.2.1,2001:DB8::7", " 2001:db8::7 , 192.0.2.1", "2001:db8::7,::1"]
)
def test_of_several_addresses_of_the_node_the_first_ipv6_one_counts(given: str) -> None:
    assert agent_config(parsed("--node-ip", given)).node_ip == "2001:db8::7"


def test_reserves() -> None:
    assert parse_reserve("cores", "500m") == Reserve(amount=500)
    assert parse_reserve("storage", "0") == Reserve()
    assert Reserve(percent=10).of(101) == 11
    assert len(HALF) == keyfile.KEK_BYTES
