"""/healthz and /metrics of an agent or an operator."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable

from berth.kube.errors import BadConfiguration


@contextlib.asynccontextmanager
async def served(port: int, healthy: Callable[[], bool], metrics: Callable[[], str]) -> AsyncIterator[None]:
    if not port:
        yield
        return
    # Only here: it is 2 MB.
    from aiohttp import web

    async def answer_health(_: web.Request) -> web.Response:
        return web.Response(text="ok\n") if healthy() else web.Response(text="the API is not reached\n", status=503)

    async def answer_metrics(_: web.Request) -> web.Response:
        return web.Response(text=metrics())

    application = web.Application()
    application.add_routes([web.get("/healthz", answer_health), web.get("/metrics", answer_metrics)])
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, os.environ.get("BERTH_HEALTH_ADDRESS", "0.0.0.0"), port).start()
    except OSError as error:
        raise BadConfiguration(f"--health-port {port}: {error.strerror}: name a port that is free") from None
    try:
        yield
    finally:
        await runner.cleanup()
