"""`berth webhook`: puts certificate, API and server together, and ends in good order.

On SIGTERM it says "not ready" first and serves on for a moment, until the API server has learnt to call the other
replica; then it finishes what is under way and ends.
"""

import argparse
import asyncio
import logging
import signal
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime

from aiohttp import web

from berth.kube.client import Api, Client
from berth.kube.config import load
from berth.kube.errors import BadConfiguration, KubeError
from berth_webhook.certificate import Material
from berth_webhook.server import Server, port_taken
from berth_webhook.tls import Identity, follow_files, identity_from_files
from berth_webhook.trust import Place, announce, obtain

log = logging.getLogger(__name__)

# How long it takes a Service to learn that a replica is not ready any more; a little longer than the probe's period.
LINGER_SECONDS = 4.0
# How often certificate and configuration are looked at.
CARE_SECONDS = 30.0
# Until every API server has taken over a new CA bundle. The old certificate is good for months yet.
SETTLE_SECONDS = 10.0
CLOSE_SECONDS = 5.0


def run(arguments: argparse.Namespace) -> int:
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for flag, port in (("--port", arguments.port), ("--health-port", arguments.health_port)):
        if not 0 <= port <= 65535:
            raise BadConfiguration(f"{flag} {port}: is no port: choose one from 1 to 65535")
    if (arguments.cert is None) != (arguments.key is None):
        given, missing = ("--cert", "--key") if arguments.key is None else ("--key", "--cert")
        raise BadConfiguration(f"{given}: is given without {missing}: give both, or neither to have a certificate made")
    asyncio.run(_serve(arguments))
    return 0


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        identity = None if arguments.cert is None else identity_from_files(arguments.cert, arguments.key)
        access = load(arguments.kubeconfig)
        api = await stack.enter_async_context(Client(access, rate=500.0, burst=1000, name="berth-webhook"))
        if identity is None:
            place = Place(arguments.namespace, arguments.secret, arguments.service, arguments.configuration)
            material = await _first_material(api, place, stop)
            if material is None:
                return
            identity = Identity(material.certificate, material.key)
            care = asyncio.create_task(care_for(identity, api, place, material))
        else:
            care = asyncio.create_task(follow_files(identity, arguments.cert, arguments.key))
        stack.push_async_callback(_end, care)
        server = Server(api)
        await _listen(stack, server.application(), "--port", arguments.port, identity)
        if arguments.health_port:
            await _listen(stack, server.health_application(), "--health-port", arguments.health_port, None)
        log.info("serving on port %d", arguments.port)
        await stop.wait()
        server.draining = True
        log.info("draining")
        await asyncio.sleep(LINGER_SECONDS)


async def _listen(
    stack: AsyncExitStack, application: web.Application, flag: str, port: int, identity: Identity | None
) -> None:
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=CLOSE_SECONDS)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, port=port, ssl_context=identity.context if identity else None).start()
    except OSError as error:
        raise BadConfiguration(port_taken(flag, port, error)) from None


async def _first_material(api: Api, place: Place, stop: asyncio.Event) -> Material | None:
    """Without a certificate nothing can be served: wait for the API. None: told to stop meanwhile."""
    while not stop.is_set():
        try:
            return await obtain(api, place, datetime.now(UTC))
        except BadConfiguration:
            raise
        except KubeError as error:
            log.warning("no certificate yet, trying again: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await stop.wait()
    return None


async def care_for(identity: Identity, api: Api, place: Place, material: Material) -> None:
    """Renew the certificate in time, and keep the configuration's CA right."""
    complaint = ""
    while True:
        try:
            material = await obtain(api, place, datetime.now(UTC), material)
            installed = await announce(api, place, material.bundle)
            said = "" if installed else f"ValidatingWebhookConfiguration {place.configuration} is not installed"
            if identity.differs(material.certificate, material.key):
                # The CA bundle first, the certificate after it: otherwise the API server would not know its CA.
                await asyncio.sleep(SETTLE_SECONDS)
                identity.exchange(material.certificate, material.key)
                log.info("serving the new certificate of Secret %s/%s", place.namespace, place.secret)
        except (KubeError, OSError, ValueError) as error:
            said = str(error)
        except Exception:  # this task has to outlive whatever an API server may answer: nobody else renews
            log.exception("certificate and configuration")
            said = ""
        if said and said != complaint:
            log.warning("certificate and configuration: %s", said)
        complaint = said
        await asyncio.sleep(CARE_SECONDS)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
