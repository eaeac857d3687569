"""What the Lease tells of a restore, to whoever reads it."""

import asyncio

import pytest

from berth.controller.restored import Restored

Reading = tuple[int, bool, float, bool]  # resourceVersion, marked, seconds idle, mine


@pytest.mark.parametrize(
    ("story", "readings", "noticed"),
    [
        ("nothing happened", [(7, False, 0.0, False), (9, False, 1.0, False)], False),
        ("it leads, and the Lease is as it was before", [(9, False, 0.0, True), (7, False, 0.0, True)], True),
        ("it stands by, and the Lease is as it was before", [(9, False, 0.0, False), (7, False, 0.0, False)], True),
        ("and nobody has renewed it yet", [(9, False, 0, False), (7, False, 0, False), (7, False, 1, False)], True),
        ("who renewed it noticed as well", [(9, False, 0, False), (7, False, 0, False), (90, True, 0, False)], True),
        (
            "and its term held back to the end",
            [(9, False, 0, False), (90, True, 0, False), (91, False, 0, False)],
            False,
        ),
        ("it was started after the restore, and another leads", [(90, True, 0.0, False)], True),
        ("all were started after the restore of an old backup", [(7, False, 3600.0, False)], True),
        ("started anew under a name that it gave itself", [(7, False, 3600.0, True)], True),
        ("its own mark is taken off by the next renewal", [(9, False, 0.0, True), (10, True, 0.0, True)], False),
        ("it could not renew for an hour, and finds its own", [(9, False, 0.0, True), (9, False, 3600.0, True)], False),
    ],
)
def test_a_restore_is_known_to_whoever_may_lead_next(story: str, readings: list[Reading], noticed: bool) -> None:
    restored = Restored()
    for version, marked, idle, mine in readings:
        restored.read(version, marked=marked, idle=idle, mine=mine)
    assert restored.noticed is noticed, story


async def test_a_term_learns_of_each_restore_once() -> None:
    restored = Restored()
    term = asyncio.ensure_future(restored.once_more(restored.times))
    await asyncio.sleep(0)
    assert not term.done()
    restored.notice()
    async with asyncio.timeout(1):
        await term
    restored.over()
    after = asyncio.ensure_future(restored.once_more(restored.times))
    await asyncio.sleep(0.01)
    assert not after.done()
    after.cancel()
