"""Who leads: a Lease, through kubernetes-asyncio. It is there so that two operators do not do the same work.

Never for safety: a leader that was paused may wake up and write. The ledger's conditional writes stand against that.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.client.exceptions import ApiException
from kubernetes_asyncio.leaderelection.electionconfig import Config
from kubernetes_asyncio.leaderelection.leaderelection import LeaderElection
from kubernetes_asyncio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes_asyncio.leaderelection.resourcelock.leaselock import LeaseLock

from berth.controller.clock import apart, since_boot
from berth.controller.restored import MARK, Restored
from berth.kube.client import Api
from berth.kube.config import Access
from berth.kube.errors import KubeError
from berth.kube.resources import LEASES

log = logging.getLogger(__name__)

LEASE = "berth-operator"
# A leader that is killed is followed after at most LEASE_SECONDS + RETRY_SECONDS.
LEASE_SECONDS = 6
RENEW_SECONDS = 4
RETRY_SECONDS = 1

# A term that was cancelled ends at once; one that does not is a mistake of ours, and a new process mends that.
END_SECONDS = 10

UNREACHABLE = '{"code": 503}'


class Idleness:
    """For how long nobody has renewed the Lease, at most, as its readings tell.

    A change that one shows came after the one before it. How old the Lease was at the first, its own time alone tells.
    """

    def __init__(self, clock: Callable[[], float] = since_boot, age: Callable[[str], float] = apart) -> None:
        self._clock, self._age = clock, age
        self._renewed: str | None = None
        self._read, self._since = 0.0, 0.0

    def read(self, renewed: str | None) -> float:
        """`renewed`: as the Lease says. Seconds; 0 when it says nothing."""
        now = self._clock()
        if renewed is None:
            self._since = now
        elif self._renewed is None:
            self._since = now - self._age(renewed)
        elif renewed != self._renewed:
            self._since = self._read
        self._renewed, self._read = renewed, now
        return now - self._since


class SteadyLock(LeaseLock):
    """A LeaseLock for which an API server that is away is a failed attempt, not the end of the election. Each reading
    of the Lease tells of a restore, and each writing has its mark."""

    def __init__(self, name: str, namespace: str, identity: str, client: ApiClient, restored: Restored) -> None:
        super().__init__(name, namespace, identity, client)
        self._restored = restored
        self._idleness = Idleness()

    async def get(self, name: str, namespace: str) -> Any:
        try:
            found, record = await super().get(name, namespace)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return False, _unreachable(error)
        if isinstance(record, LeaderElectionRecord) and self.lease_reference is not None:
            meta = self.lease_reference.metadata
            self._restored.read(
                int(meta.resource_version),
                marked=MARK in (meta.annotations or {}),
                idle=self._idleness.read(record.renew_time),
                mine=record.holder_identity == self.identity,
            )
        return found, record

    async def create(self, name: str, namespace: str, election_record: Any) -> bool:
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            return bool(await super().create(name, namespace, election_record))
        return False

    async def update(self, name: str, namespace: str, updated_record: Any) -> bool:
        assert self.lease_reference is not None  # it was read just before
        meta = self.lease_reference.metadata
        marks = {MARK: "grants are held back"} if self._restored.noticed else {}
        meta.annotations = {key: text for key, text in (meta.annotations or {}).items() if key != MARK} | marks
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            return bool(await super().update(name, namespace, updated_record))
        return False


class SteadyElection(LeaderElection):
    """An election that goes on as before when somebody sets the wall clock, by which the library measures patience: a
    standby would wait for an hour, or take over at once, and a leader that cannot renew would go on for as long."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._offset = time.time() - time.monotonic()

    async def renew_loop(self) -> None:
        """Returns when the Lease could not be renewed for RENEW_SECONDS."""
        config, renewed = self.election_config, time.monotonic()
        while time.monotonic() < renewed + config.renew_deadline:
            if await self.try_acquire_or_renew():
                renewed = time.monotonic()
            await asyncio.sleep(config.retry_period)

    async def try_acquire_or_renew(self) -> bool:
        offset = time.time() - time.monotonic()
        self.observed_time_milliseconds += int(1000 * (offset - self._offset))
        self._offset = offset
        return bool(await super().try_acquire_or_renew())


def _unreachable(error: Exception) -> ApiException:
    failure = ApiException(status=503, reason=str(error) or type(error).__name__)
    failure.body = UNREACHABLE  # type: ignore[assignment]  # the library reads it as text
    return failure


async def lead(
    access: Access,
    namespace: str,
    identity: str,
    restored: Restored,
    term: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    """Stand for election again and again; while elected, run `term`, which is cancelled when the Lease is lost.
    `restored` is told what the Lease tells.

    An error inside a term ends the process: a leader that cannot go on must not keep the Lease.
    """
    terms: set[asyncio.Task[None]] = set()

    async def serve() -> None:
        log.info("elected", extra={"identity": identity})
        task = asyncio.ensure_future(term())
        terms.add(task)
        await task

    async def stop() -> None:
        log.warning("no longer leading", extra={"identity": identity})

    async with _client(access) as client:
        lock = SteadyLock(LEASE, namespace, identity, client, restored)
        config = Config(lock, LEASE_SECONDS, RENEW_SECONDS, RETRY_SECONDS, serve, stop)
        while True:
            election = asyncio.ensure_future(SteadyElection(config).run())
            try:
                while not election.done() and not any(task.done() for task in terms):
                    await asyncio.wait({election, *terms}, timeout=RETRY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # The library leaves the term running when the election itself is cancelled.
                for task in (election, *terms):
                    task.cancel()
                _, stuck = await asyncio.wait({election, *terms}, timeout=END_SECONDS)
            if stuck:
                raise RuntimeError(f"a term was cancelled, and has not ended within {END_SECONDS} s")
            for task in terms:
                if not task.cancelled():
                    task.result()
            terms.clear()


async def resign(api: Api, namespace: str, identity: str) -> None:
    """Give the Lease back, if it is ours, so that the standby leads at once."""
    path = LEASES.path(LEASE, namespace=namespace)
    with contextlib.suppress(KubeError):
        lease = await api.get(path)
        if lease["spec"].get("holderIdentity") == identity:
            lease["spec"] |= {"holderIdentity": None, "leaseDurationSeconds": 1}
            await api.replace(path, lease)


@contextlib.asynccontextmanager
async def _client(access: Access) -> AsyncIterator[ApiClient]:
    """kubernetes-asyncio's own client, over connections of ours: it reads certificates from files alone, and a process
    that is killed would leave its key behind."""
    configuration = Configuration(host=access.server)
    token = access.bearer()
    if token is not None:
        configuration.api_key = {"BearerToken": token}
        configuration.api_key_prefix = {"BearerToken": "Bearer"}

        async def refresh(current: Configuration) -> None:
            current.api_key["BearerToken"] = access.bearer()

        configuration.refresh_api_key_hook = refresh
    async with ApiClient(configuration) as client:
        await client.rest_client.close()
        client.rest_client.pool_manager = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=access.tls or True), trust_env=True
        )
        yield client
