"""`berth operator`: kopf, the election and, while elected, a term, in one event loop."""

import argparse
import asyncio
import logging
import secrets
import signal
import socket
from typing import Any

import kopf
import prometheus_client
import uvloop

from berth.controller import handlers
from berth.controller.leadership import lead, resign
from berth.controller.metrics import METRICS
from berth.controller.restored import Restored
from berth.controller.settings import Settings
from berth.controller.term import Term, reign
from berth.health import served
from berth.kube.client import Client, Object
from berth.kube.config import Access, load
from berth.kube.errors import BadConfiguration, KubeError, NotFound
from berth.kube.resources import GROUP, VERSION
from berth.logs import set_up

log = logging.getLogger(__name__)

# One operator serves the whole cluster: two writes for each address, and a share of a third.
REQUESTS_A_SECOND = 1000.0
BURST = 2000
END_SECONDS = 1.0


def run(arguments: argparse.Namespace) -> int:
    set_up(arguments.log_level)
    access = load(arguments.kubeconfig)
    identity = arguments.identity or f"{socket.gethostname()}-{secrets.token_hex(4)}"
    settings = Settings(
        arguments.reclaim_grace, arguments.recheck_interval, arguments.comparison_interval, arguments.reassertion_time
    )
    operator = Operator(access, arguments.namespace, identity, arguments.health_port, settings)
    uvloop.run(operator.run())
    return 0


class Operator:
    """One replica."""

    def __init__(self, access: Access, namespace: str, identity: str, health_port: int, settings: Settings) -> None:
        self._access = access
        self._namespace = namespace
        self._identity = identity
        self._health_port = health_port
        self._settings = settings
        self._term: Term | None = None
        self._restored = Restored()

    async def run(self) -> None:
        async with Client(self._access, rate=REQUESTS_A_SECOND, burst=BURST, name="berth-operator") as api:
            await _check(api, self._access.server)
            async with served(self._health_port, lambda: True, _metrics):
                await self._serve(api)

    async def _serve(self, api: Client) -> None:
        """Until a signal says stop, or something fails that another term would not mend. The Lease is given back
        before anything slow: the standby leads at once."""
        stop = asyncio.Event()
        watching = asyncio.create_task(self._watch(stop))
        leading = asyncio.create_task(
            lead(self._access, self._namespace, self._identity, self._restored, lambda: self._lead(api))
        )
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({watching, leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        log.info("stopping")
        await _end(leading)
        await resign(api, self._namespace, self._identity)
        log.info("lease given back")
        stop.set()
        await asyncio.wait({watching}, timeout=END_SECONDS)
        await _end(watching)
        for task in (leading, watching):
            if task.done() and not task.cancelled():
                task.result()

    async def _watch(self, stop: asyncio.Event) -> None:
        told = handlers.registry(self._pool_event, self._reserved_event, self._login)
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(registry=told, standalone=True, clusterwide=True, stop_flag=stop)
        _on_signal(stop)
        await kopf.run_tasks(tasks, ignored=ours)

    async def _lead(self, api: Client) -> None:
        METRICS.leading.set(1)
        try:
            await reign(api, self._settings, self._begins, self._restored)
        finally:
            METRICS.leading.set(0)
            self._term = None

    def _begins(self, term: Term) -> None:
        self._term = term

    def _pool_event(self, kind: str | None, item: Object) -> None:
        if self._term is not None:
            self._term.pool_event(kind, item)

    def _reserved_event(self, kind: str | None, item: Object) -> None:
        if self._term is not None:
            self._term.reserved_event(kind, item)

    def _login(self) -> kopf.ConnectionInfo:
        certificate, key = self._access.certificate or (None, None)
        token = self._access.bearer()
        return kopf.ConnectionInfo(
            server=self._access.server,
            ca_data=self._access.ca_data,
            insecure=self._access.tls is not None and not self._access.tls.check_hostname,
            certificate_data=certificate,
            private_key_data=key,
            scheme="Bearer" if token else None,
            token=token,
        )


def _on_signal(stop: asyncio.Event) -> None:
    """Ours, in place of those kopf has just set: its own way out takes seconds."""
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)


async def _end(task: "asyncio.Task[Any]") -> None:
    """Cancel it and see it end, but do not wait for ever."""
    task.cancel()
    await asyncio.wait({task}, timeout=END_SECONDS)


async def _check(api: Client, server: str) -> None:
    """One clear line, before anything is begun."""
    try:
        await api.get(f"/apis/{GROUP}/{VERSION}")
    except NotFound:
        raise BadConfiguration(
            f"{server} does not know {GROUP}/{VERSION}: install the resources with kubectl apply -f crds/"
        ) from None
    except KubeError as error:
        raise BadConfiguration(f"{server} does not answer as a Kubernetes API should: {error}") from None


def _metrics() -> str:
    return prometheus_client.generate_latest().decode()
