"""What would ask the machine (clocks, process numbers, loggers) asks the simulation."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from unittest import mock

import berth_cni.agent
import berth_cni.reach
import berth_cni.underway
from berth.controller import book, reservations, scribe
from tests.simulation.objects import timestamp
from tests.simulation.world import World

TICKS = 100


@contextmanager
def stand_ins(world: World, note: Callable[[str], None] | None) -> Iterator[None]:
    """`note`: is told what the program logs; None: nothing is logged."""

    def now() -> str:
        return timestamp(world.loop.time())

    def ticks() -> int:
        return int(world.loop.time() * TICKS)

    def start_of(pid: int) -> int | None:
        began = world.started.get(pid)
        return None if began is None else int(began * TICKS)

    clock = world.loop.time
    clocks = SimpleNamespace(monotonic=clock)
    with (
        mock.patch.object(book, "timestamp", now),
        mock.patch.object(scribe, "timestamp", now),
        mock.patch.object(reservations, "timestamp", now),
        mock.patch.object(berth_cni.agent, "time", clocks),
        mock.patch.object(berth_cni.reach, "time", clocks),
        mock.patch.object(berth_cni.underway, "_now", ticks),
        mock.patch.object(berth_cni.underway, "_start_of", start_of),
        _logging(note),
    ):
        yield


@contextmanager
def _logging(note: Callable[[str], None] | None) -> Iterator[None]:
    if note is None:
        before = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
        return
    handler = _Lines(note)
    loggers = [logging.getLogger("berth"), logging.getLogger("berth_cni")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
            logger.setLevel(logging.NOTSET)
            logger.propagate = True


class _Lines(logging.Handler):
    """What the program logs is part of the history."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__()
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        usual = logging.makeLogRecord({}).__dict__
        extra = {key: value for key, value in record.__dict__.items() if key not in usual and key != "message"}
        self._note(f"# {record.getMessage()} {extra or ''}")
