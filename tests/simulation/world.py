"""What all actors of a simulated cluster share."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.simulation.apiserver import ApiServer
from tests.simulation.checker import Checker
from tests.simulation.loop import Process, SimulatedLoop


@dataclass(slots=True)
class World:
    loop: SimulatedLoop
    random: Random
    api: ApiServer
    checker: Checker
    folder: Path
    failures: list[BaseException] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    tasks: set["asyncio.Task[Any]"] = field(default_factory=set)
    calm: bool = False
    marked: bool = False  # the Lease, after a restore: grants are held back
    sandbox_seconds: float = 40.0  # how long a sandbox lives, if nothing else ends it
    note: Callable[[str], None] = lambda text: None
    started: dict[int, float] = field(default_factory=dict)  # process number -> when it was started

    def process(self, name: str) -> Process:
        process = Process(self.loop, name)
        self.processes.append(process)
        return process

    def go(self, coroutine: Any) -> "asyncio.Task[Any]":
        task: asyncio.Task[Any] = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failures.append(error)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def rarely(self, probability: float) -> bool:
        """A fault: none once the history is calm."""
        return not self.calm and self.random.random() < probability
