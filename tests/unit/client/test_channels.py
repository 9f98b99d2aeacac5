from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.word_reward import WordReward

from assay.reward.v1 import reward_pb2_grpc
from assay_client import AsyncRewardClient, RewardClient, Security
from assay_client.channels import target_of
from assay_client.errors import Unauthenticated, Unavailable

ASK = [{"role": "user", "content": "How was it?"}]


@pytest.mark.parametrize(
    ("addresses", "target"),
    [
        ("localhost:1", "localhost:1"),
        ("dns:///reward.assay.svc:50052", "dns:///reward.assay.svc:50052"),
        ("unix:///run/reward.sock", "unix:///run/reward.sock"),
        (" 10.0.0.1:1,10.0.0.2:2 ,", "ipv4:10.0.0.1:1,10.0.0.2:2"),
        ("[::1]:1,[::1]:2", "ipv6:[::1]:1,[::1]:2"),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", "ipv4:10.0.0.1:1,10.0.0.2:2"),
    ],
)
def test_addresses_are_read_as_grpc_names(addresses: str, target: str) -> None:
    assert target_of(addresses) == target


@pytest.mark.parametrize(("addresses", "why"), [("reward:1,10.0.0.2:2", "'reward:1' is a name"), ("10.0.0.1:1,[::1]:2", "IPv4")])
def test_several_names_or_mixed_addresses_are_refused(addresses: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        target_of(addresses)


def test_a_token_is_not_shown_and_a_certificate_comes_with_its_key() -> None:
    assert "secret" not in repr(Security(token="secret"))
    with pytest.raises(ValueError, match="go together"):
        Security(cert_file="client.pem")


class Guarded(grpc.aio.ServerInterceptor):
    """Lets in who has the token."""

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if ("authorization", "Bearer secret") in details.invocation_metadata:
            return await continuation(details)

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a token is wanted")

        return grpc.unary_unary_rpc_method_handler(refuse)


def certificates(folder: Path) -> dict[str, Path]:
    """An authority, and a server and a client that it vouches for."""
    subject = ["-subj", "/CN=assay test"]
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    files = {f"{name}.{kind}": folder / f"{name}.{kind}" for name in ("ca", "server", "client") for kind in ("pem", "key")}
    subprocess.run([*made, *subject, "-keyout", files["ca.key"], "-out", files["ca.pem"]], check=True, capture_output=True)
    for name in ("server", "client"):
        signed = ["-CA", files["ca.pem"], "-CAkey", files["ca.key"], "-addext", "subjectAltName=IP:127.0.0.1"]
        own = ["-keyout", files[f"{name}.key"], "-out", files[f"{name}.pem"]]
        subprocess.run([*made, *subject, *signed, *own], check=True, capture_output=True)
    return files


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[tuple[str, dict[str, Path]]]:
    """A server that wants a client certificate and the token."""
    try:
        files = certificates(tmp_path)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no openssl that makes certificates: {error}")
    server = grpc.aio.server(interceptors=[Guarded()])
    reward_pb2_grpc.add_RewardServiceServicer_to_server(WordReward(), server)
    pair = (files["server.key"].read_bytes(), files["server.pem"].read_bytes())
    credentials = grpc.ssl_server_credentials([pair], files["ca.pem"].read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    yield f"127.0.0.1:{port}", files
    await server.stop(None)


async def test_tls_both_ways_and_a_token_let_the_caller_in_and_less_does_not(secured: tuple[str, dict[str, Path]]) -> None:
    target, files = secured
    mutual = {"ca_file": str(files["ca.pem"]), "cert_file": str(files["client.pem"]), "key_file": str(files["client.key"])}
    async with AsyncRewardClient.connect(target, security=Security(**mutual, token="secret")) as reward:
        assert (await reward.score_group(ASK, ["good", "bad"])).best_index == 0
    async with AsyncRewardClient.connect(target, security=Security(**mutual)) as reward:
        with pytest.raises(Unauthenticated, match="token"):
            await reward.score_group(ASK, ["good"])
    for less in (Security(ca_file=mutual["ca_file"], token="secret"), Security(token="secret"), None):
        async with AsyncRewardClient.connect(target, security=less) as reward:
            with pytest.raises(Unavailable):
                await reward.score_group(ASK, ["good"], timeout_seconds=20)


async def test_threads_take_the_same_way_in(secured: tuple[str, dict[str, Path]]) -> None:
    target, files = secured
    mutual = {"ca_file": str(files["ca.pem"]), "cert_file": str(files["client.pem"]), "key_file": str(files["client.key"])}

    def ask() -> float:
        with RewardClient.connect(target, security=Security(**mutual, token="secret")) as reward:
            return reward.score_group(ASK, ["good good"]).scores[0].raw

    assert await asyncio.to_thread(ask) == 2
