"""`berth agent`: puts the parts together, serves until SIGTERM, and leaves nothing half done."""

import argparse
import asyncio
import contextlib
import gc
import logging
import signal
from pathlib import Path

import uvloop

import berth_cni.lean  # noqa: F401  (before all that imports aiohttp)
from berth.health import served
from berth.kube.client import Client
from berth.kube.config import Access, load
from berth.kube.errors import BadConfiguration
from berth.kube.reflector import follow
from berth.kube.resources import ENDPOINTS
from berth.logs import set_up
from berth_cni.adding import Adder
from berth_cni.agent import STATUS_PATIENCE_SECONDS, Agent
from berth_cni.asserting import Asserter
from berth_cni.claims import Claims
from berth_cni.install import find_shim, install
from berth_cni.journal import Journal
from berth_cni.metrics import Metrics
from berth_cni.reach import Reach
from berth_cni.releasing import Releaser
from berth_cni.server import Server
from berth_cni.underway import Lanes

log = logging.getLogger(__name__)

# A node starts some ten Pods a second at most; what is more waits its turn.
REQUESTS_A_SECOND = 100.0
BURST = 300
# Each connection is a TLS handshake and its buffers. One is the watch's.
CONNECTIONS = 8
GRACE_SECONDS = 5.0


def run(arguments: argparse.Namespace) -> int:
    set_up(arguments.log_level)
    access = load(arguments.kubeconfig)
    if arguments.install_shim is not None:
        log.info("the shim is installed", extra={"file": install(find_shim(), arguments.install_shim)})
    uvloop.run(serve(access, arguments.node, arguments.socket.absolute(), arguments.state_dir, arguments.health_port))
    return 0


async def serve(access: Access, node: str, socket_path: Path, state: Path, health_port: int) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    journal = Journal(state / "journal")
    try:
        journal.load()
    except OSError as error:
        raise BadConfiguration(f"--state-dir {state}: {error.strerror}: name a folder that can be written") from None
    name = f"berth-agent/{node}"
    async with Client(access, rate=REQUESTS_A_SECOND, burst=BURST, connections=CONNECTIONS, name=name) as client:
        reach, claims, lanes, metrics = Reach(client), Claims(), Lanes(), Metrics()
        releaser = Releaser(reach, claims, journal, lanes, socket_path)
        agent = Agent(Adder(node, reach, claims, releaser), releaser, claims, reach, lanes, metrics)
        asserter = Asserter(reach, claims, releaser, lanes)
        server = Server(socket_path, agent.answer)

        def text() -> str:
            return metrics.text(
                {
                    "berth_agent_endpoints": ("Endpoints of this node.", len(claims)),
                    "berth_agent_reasserted": ("Endpoints made again after they vanished.", asserter.count),
                    "berth_agent_journal_entries": ("Releases kept until the API answers.", len(journal)),
                    "berth_agent_api_away_seconds": ("How long the API has not answered.", reach.away_for),
                }
            )

        def healthy() -> bool:
            return claims.synced.is_set() and reach.away_for <= STATUS_PATIENCE_SECONDS

        own = {"fieldSelector": f"spec.node={node}"}
        follower = follow(reach, ENDPOINTS.path(), claims, params=own, rewound=claims.rewound)
        running = [
            asyncio.ensure_future(each)
            for each in (follower, reach.probe(node), releaser.replay(), releaser.watch_spool())
        ]
        async with served(health_port, healthy, text):
            await server.start()
            log.info("the agent serves", extra={"node": node, "socket": socket_path, "journal": len(journal)})
            # What was imported stays for ever: the collector need not look at it again.
            gc.collect()
            gc.freeze()
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({stopping, *running}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await server.stop(GRACE_SECONDS)
        for task in running:
            failed = task.done()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert not failed, "none of these ends by itself"
        log.info("the agent has ended", extra={"node": node})
