"""The server over real TLS on loopback: its certificate changes under open connections, and it ends in good order."""

import argparse
import asyncio
import os
import shutil
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from berth.kube.errors import BadConfiguration, Unknown
from berth.kube.resources import POOLS
from berth_webhook import main, tls
from berth_webhook.server import Server
from e2e.cluster.pki import Authority, Credential
from tests.webhook.fakes import FakeApi

BLUE = {"metadata": {"name": "blue"}, "spec": {"subnet": "10.0.0.0/24"}}


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("pki"))
    authority.create()
    for name in ("one", "two"):
        authority.issue(name, name, hosts=["127.0.0.1"])
    return authority


def pair(pki: Authority, name: str) -> Credential:
    return Credential(pki.folder / f"{name}.crt", pki.folder / f"{name}.key")


@asynccontextmanager
async def serving(server: Server, identity: tls.Identity) -> AsyncIterator[str]:
    runner = web.AppRunner(server.application(), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=identity.context)
    await site.start()
    try:
        yield f"https://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def client(pki: Authority) -> AsyncIterator[aiohttp.ClientSession]:
    trust = ssl.create_default_context(cafile=str(pki.cert))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=trust)) as session:
        yield session


async def posted(url: str, pki: Authority, body: bytes) -> tuple[int, bytes]:
    async with client(pki) as session, session.post(f"{url}/validate", data=body) as answer:
        return answer.status, await answer.read()


async def reviewed(url: str, pki: Authority, new: dict[str, Any]) -> Any:
    return orjson.loads((await posted(url, pki, orjson.dumps(review(new))))[1])["response"]


@pytest.fixture
def one(pki: Authority) -> tls.Identity:
    return tls.identity_from_files(pair(pki, "one").cert, pair(pki, "one").key)


def review(new: dict[str, Any]) -> dict[str, Any]:
    resource = {"group": "ipam.berth.dev", "version": "v1alpha1", "resource": "ippools"}
    request = {"uid": "42", "operation": "CREATE", "resource": resource, "object": new}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def presented(host_port: str, pki: Authority) -> str:
    """Common name of the certificate, as a client without SNI (an API server that calls an address) sees it."""
    host, _, port = host_port.removeprefix("https://").partition(":")
    trust = ssl.create_default_context(cafile=str(pki.cert))
    with socket.create_connection((host, int(port))) as raw, trust.wrap_socket(raw, server_hostname=host) as wrapped:
        subject: Any = wrapped.getpeercert()
        return str(dict(part[0] for part in subject["subject"])["commonName"])


async def test_a_review_is_answered_from_what_the_api_says_at_that_moment(pki: Authority, one: tls.Identity) -> None:
    api = FakeApi()
    green = {**BLUE, "metadata": {"name": "green"}}
    async with serving(Server(api), one) as url:
        assert await reviewed(url, pki, green) == {"uid": "42", "allowed": True}
        api.store(POOLS.path("blue"), BLUE)
        said = await reviewed(url, pki, green)
    assert not said["allowed"]
    assert "overlaps IPPool blue" in said["status"]["message"]


async def test_when_the_api_cant_be_read_the_answer_says_so(pki: Authority, one: tls.Identity) -> None:
    api = FakeApi()
    api.failure = Unknown("GET /apis: connection refused")
    async with serving(Server(api), one) as url:
        said = await reviewed(url, pki, BLUE)
    assert said["status"]["code"] == 503
    assert "connection refused" in said["status"]["message"]


async def test_an_api_that_hangs_is_answered_for_within_the_webhooks_five_seconds(
    pki: Authority, one: tls.Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("berth_webhook.server.READ_SECONDS", 0.1)
    api = FakeApi()

    async def hang(*_: object, **__: object) -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(api, "list", hang)
    async with serving(Server(api), one) as url:
        assert "no answer in 0.1 s" in (await reviewed(url, pki, BLUE))["status"]["message"]


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b"\xff", b'{"kind": "AdmissionReview"}', b"[" * 5000])
async def test_what_is_no_review_gets_400_and_a_sentence(pki: Authority, one: tls.Identity, body: bytes) -> None:
    async with serving(Server(FakeApi()), one) as url:
        status, said = await posted(url, pki, body)
    assert status == 400
    assert len(said) > 10


async def test_a_draining_server_is_not_ready_but_answers_and_asks_to_reconnect(
    pki: Authority, one: tls.Identity
) -> None:
    server = Server(FakeApi())
    async with serving(server, one) as url, client(pki) as session:
        async with session.get(f"{url}/readyz") as answer:
            assert answer.status == 200
        server.draining = True
        async with session.get(f"{url}/readyz") as answer:
            assert answer.status == 503
        async with session.get(f"{url}/healthz") as answer:
            assert answer.status == 200
        async with session.post(f"{url}/validate", json=review(BLUE)) as answer:
            assert answer.status == 200
            assert answer.headers["Connection"] == "close"


async def until(probe: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not await asyncio.to_thread(probe):  # noqa: ASYNC110 - a handshake is all there is to see
            await asyncio.sleep(0.02)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """A request on a connection that is open, and stays so."""
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len("ok\n"))
    return head.splitlines()[0]


async def test_new_files_are_served_without_dropping_a_connection(
    pki: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tls, "WATCH_SECONDS", 0.05)
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    shutil.copy(pair(pki, "one").cert, cert)
    shutil.copy(pair(pki, "one").key, key)
    identity = tls.identity_from_files(cert, key)
    following = asyncio.create_task(tls.follow_files(identity, cert, key))
    async with serving(Server(FakeApi()), identity) as url:
        trust = ssl.create_default_context(cafile=str(pki.cert))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]), ssl=trust)
        assert await ask(reader, writer) == b"HTTP/1.1 200 OK"
        assert await asyncio.to_thread(presented, url, pki) == "one"

        shutil.copy(pair(pki, "two").cert, cert)  # half of the change: certificate and key do not fit
        await until(lambda: "still serving the old certificate" in caplog.text)
        assert await asyncio.to_thread(presented, url, pki) == "one"
        shutil.copy(pair(pki, "two").key, key)
        await until(lambda: presented(url, pki) == "two")

        assert await ask(reader, writer) == b"HTTP/1.1 200 OK"
        cert.unlink()
        await asyncio.sleep(0.2)
        assert await asyncio.to_thread(presented, url, pki) == "two"
        writer.close()
    following.cancel()


def arguments(pki: Authority, **changes: Any) -> argparse.Namespace:
    one = pair(pki, "one")
    given = {"kubeconfig": None, "log_level": "info", "cert": one.cert, "key": one.key, "port": 0, "health_port": 0}
    return argparse.Namespace(**{**given, **changes})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cert": Path("nowhere.crt")}, "--cert nowhere.crt: No such file or directory: give a readable PEM file"),
        ({"key": None}, "--cert: is given without --key"),
        ({"cert": None}, "--key: is given without --cert"),
        ({"port": 70000}, "--port 70000: is no port"),
        ({"health_port": -1}, "--health-port -1: is no port"),
        ({"kubeconfig": "nowhere"}, "kubeconfig nowhere: No such file or directory"),
    ],
)
def test_a_bad_command_line_is_one_line_with_flag_and_remedy(
    pki: Authority, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(BadConfiguration) as raised:
        main.run(arguments(pki, **changes))
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_are_mixed_up_or_do_not_fit_are_named(pki: Authority) -> None:
    one, two = pair(pki, "one"), pair(pki, "two")
    with pytest.raises(BadConfiguration, match=r"--cert .* holds no PEM certificate: .* mixed up"):
        tls.identity_from_files(one.key, one.cert)
    with pytest.raises(BadConfiguration, match=r"--cert .* and --key .*: can't be used together \(key values mismatch"):
        tls.identity_from_files(one.cert, two.key)


def kubeconfig(folder: Path) -> str:
    file = folder / "kubeconfig"
    file.write_text(
        "{current-context: x, contexts: [{name: x, context: {cluster: x}}],"
        " clusters: [{name: x, cluster: {server: 'http://127.0.0.1:1'}}]}"
    )
    return str(file)


def test_a_port_in_use_is_named(pki: Authority, tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadConfiguration, match=f"--port {port}: is in use: stop what listens there"):
            main.run(arguments(pki, port=port, kubeconfig=kubeconfig(tmp_path)))


async def test_on_sigterm_it_fails_readiness_first_and_then_ends(
    pki: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "LINGER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = asyncio.create_task(main._serve(arguments(pki, port=port, kubeconfig=kubeconfig(tmp_path))))
    url, seen = f"https://127.0.0.1:{port}/readyz", []
    async with client(pki) as session:
        while not running.done():
            try:
                async with session.get(url) as answer:
                    seen.append(answer.status)
            except aiohttp.ClientError:
                seen.append(0)
            if seen.count(200) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(0.02)
    await running
    states = [status for status, before in zip(seen, [None, *seen], strict=False) if status != before]
    assert [status for status in states if status] == [200, 503]
