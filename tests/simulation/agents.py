"""Agents: the real `Agent` with its journal and spool on disk, in a folder of this history.

Only what touches the machine is stood in for: the socket, and the shim at its other end.
"""

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import orjson

from berth.kube.reflector import follow
from berth.kube.resources import ENDPOINTS
from berth_cni import spool
from berth_cni.adding import Adder
from berth_cni.agent import Agent
from berth_cni.asserting import Asserter
from berth_cni.claims import Claims
from berth_cni.frames import SENT, Request, encode_request
from berth_cni.journal import Journal
from berth_cni.metrics import Metrics
from berth_cni.reach import Reach
from berth_cni.releasing import Releaser
from berth_cni.underway import Lanes, Underway
from tests.simulation.apiserver import Client
from tests.simulation.checker import Violation
from tests.simulation.world import World

SHIM_SECONDS = 65.0
AWAY = (11, b"")
Outcome = tuple[int, bytes]


class Shim:
    """The caller of one CNI call: gets the answer, or learns that the agent is gone."""

    def __init__(self, world: World, pid: int) -> None:
        self._world, self.pid = world, pid
        self.outcome: asyncio.Future[Outcome] = world.loop.create_future()
        self.dead = False

    async def deliver(self, exit_code: int, stdout: bytes, *, acknowledged: bool) -> bool:
        if self.outcome.done():
            return False
        if self._world.rarely(0.02):
            # It is killed before it has told its caller anything.
            self.outcome.set_result(AWAY)
            return False
        self.outcome.set_result((exit_code, stdout))
        return True


class NodeAgent:
    """The agent of one node, over all its restarts."""

    def __init__(self, world: World, node: str) -> None:
        self._world, self.node = world, node
        self._socket = world.folder / node / "berth.sock"
        (world.folder / node).mkdir()
        self._calls: dict[Shim, Underway] = {}
        self._spooled = 0
        self._agent: Agent | None = None
        self.client = Client(world.api, f"agent/{node}")
        self.process = world.process(node)
        self.start()

    @property
    def remembers(self) -> bool:
        """What its node holds: it has listed it, and nothing keeps it from following that."""
        return self._agent is not None and self.claims.synced.is_set() and not self.process.stopped

    def start(self) -> None:
        if self._agent is not None:
            return
        self.process = self._world.process(self.node)
        severed = self.client.severed
        self.client = Client(self._world.api, f"agent/{self.node}")
        self.client.severed = severed
        journal = Journal(self._world.folder / self.node / "journal")
        journal.load()
        reach, claims, lanes = Reach(self.client), Claims(), Lanes()
        self.claims = claims
        releaser = Releaser(reach, claims, journal, lanes, self._socket)
        adder = Adder(self.node, reach, claims, releaser)
        self._agent = Agent(adder, releaser, claims, reach, lanes, Metrics())
        params = {"fieldSelector": f"spec.node={self.node}"}
        Asserter(reach, claims, releaser, lanes)
        follower = follow(reach, ENDPOINTS.path(), claims, params=params, rewound=claims.rewound)
        for each in (follower, reach.probe(self.node), releaser.replay(), releaser.watch_spool()):
            task: asyncio.Task[None] = self.process.spawn(each)
            task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self._world.failures.append(task.exception() or AssertionError("an agent's task has ended by itself"))

    def crash(self) -> None:
        self._world.note(f"* the agent of {self.node} is killed")
        self.process.kill()
        self._agent = None
        calls, self._calls = self._calls, {}
        for shim in calls:
            if not shim.outcome.done():
                shim.outcome.set_result(AWAY)

    async def call(self, pid: int, command: str, container: str, args: str, config: Mapping[str, Any]) -> Outcome:
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": f"/run/netns/{container}",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": args,
            "CNI_PATH": "/opt/cni/bin",
        }
        request = Request(environment, orjson.dumps(config))
        if self._agent is None:
            return self._alone(request)
        shim, underway = Shim(self._world, pid), Underway()
        self._calls[shim] = underway
        self.process.spawn(self._agent.answer(request, shim, underway))
        try:
            async with asyncio.timeout(SHIM_SECONDS):
                outcome = await shim.outcome
        except TimeoutError:
            underway.abandon("its caller went away")
            outcome = AWAY
        self._calls.pop(shim, None)
        if b"the berth agent failed" in outcome[1]:
            raise Violation(f"the agent of {self.node} has a bug: {outcome[1].decode()}")
        return self._alone(request) if command == "DEL" and outcome == AWAY else outcome

    def _alone(self, request: Request) -> Outcome:
        """The shim without an agent: a DEL is kept in the spool."""
        if request.environment["CNI_COMMAND"] != "DEL":
            return AWAY
        self._spooled += 1
        came = int(self._world.loop.time() * 1e9) + self._spooled
        frame = encode_request(Request({**request.environment, SENT: str(came // 1_000_000)}, request.stdin))
        assert isinstance(frame, bytes)
        folder = spool.folder(self._socket)
        folder.mkdir(exist_ok=True)
        (folder / request.environment["CNI_CONTAINERID"]).write_bytes(frame)
        # Whether the folder has changed must not depend on how fine the machine's clock is.
        os.utime(folder, ns=(came, came))
        return 0, b""
