"""The HTTP side: POST /validate, GET /healthz, GET /readyz.

Each review reads what it needs from the API, then and there: nothing is cached, so nothing is stale but for the race
that no webhook can close. Each is answered within the 5 s the API server gives it, if need be with a refusal that says
why: a webhook that times out is refused with a message that helps nobody.
"""

import asyncio
import errno
import logging

import orjson
from aiohttp import web

from berth.core.admission import Verdict
from berth.kube.client import Api
from berth.kube.errors import KubeError
from berth.kube.resources import ENDPOINTS, POOLS, RESERVED
from berth_webhook.review import Known, Need, Review, Unusable, answer, blind, decide, needs, read

log = logging.getLogger(__name__)

# Of the 5 s of the ValidatingWebhookConfiguration, less what the way there and back and the deciding take.
READ_SECONDS = 3.5
# The API server takes 3 MiB of a request; a review holds the object twice.
BODY_MOST = 8 * 1024 * 1024
PATHS = {Need.POOLS: POOLS.path(), Need.RESERVED: RESERVED.path(), Need.ENDPOINTS: ENDPOINTS.path()}


class Server:
    """The handlers. `draining` turns /readyz down, and asks clients to connect elsewhere next time."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.draining = False

    def application(self) -> web.Application:
        application = web.Application(client_max_size=BODY_MOST)
        application.add_routes([web.post("/validate", self._validate), *self._health()])
        return application

    def health_application(self) -> web.Application:
        """For --health-port: plain HTTP, without /validate."""
        application = web.Application()
        application.add_routes(self._health())
        return application

    def _health(self) -> list[web.RouteDef]:
        return [web.get("/healthz", self._alive), web.get("/readyz", self._ready)]

    async def _alive(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _ready(self, request: web.Request) -> web.Response:
        """Ready even while the API can't be read: a refusal that says so is better than nobody there."""
        return web.Response(status=503, text="draining\n") if self.draining else web.Response(text="ok\n")

    async def _validate(self, request: web.Request) -> web.Response:
        review = read(await request.read())
        if isinstance(review, Unusable):
            response = web.Response(status=400, text=review.why + "\n")
        else:
            known = await self._look(needs(review))
            verdict = decide(review, known)
            _record(review, verdict)
            content = orjson.dumps(answer(review, verdict, unavailable=blind(review, known)))
            response = web.Response(body=content, content_type="application/json")
        if self.draining:
            response.force_close()
        return response

    async def _look(self, needed: frozenset[Need]) -> Known:
        order = sorted(needed)
        found = dict(zip(order, await asyncio.gather(*(self._list(need) for need in order)), strict=True))
        gaps = tuple((need, why) for need, why in found.items() if isinstance(why, str))
        lists = {need: items for need, items in found.items() if not isinstance(items, str)}
        return Known(lists.get(Need.POOLS, []), lists.get(Need.RESERVED, []), lists.get(Need.ENDPOINTS, []), gaps)

    async def _list(self, need: Need) -> list[dict[str, object]] | str:
        """All of a kind, or why it can't be read."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                return (await self._api.list(PATHS[need])).items
        except TimeoutError:
            return f"no answer in {READ_SECONDS:g} s"
        except (KubeError, OSError) as error:  # OSError: a service account token that is not there
            return str(error)


def _record(review: Review, verdict: Verdict) -> None:
    if not verdict.allowed:
        log.info("refused %s of %s", review.operation, verdict.message)
    elif verdict.warnings:
        log.info("allowed %s of %s, warned: %s", review.operation, verdict.subject, "; ".join(verdict.warnings))


def port_taken(flag: str, port: int, error: OSError) -> str:
    """Why a port can't be had, and what to do."""
    if isinstance(error, PermissionError):
        return f"{flag} {port}: needs privileges: choose a port from 1024 on"
    why = "is in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
    return f"{flag} {port}: {why}: stop what listens there, or choose another port"
