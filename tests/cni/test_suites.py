"""The test suites of upstream's bridge, macvlan and ptp, as they are, over Berth in place of host-local.

They execute whatever is first on PATH under the name `host-local`: `adapter.py`. Every case that exists is run and must
pass, but for those of `CANNOT`, each with its reason, and of what this kernel lacks. docs/cni.md has the figures.
"""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e.cluster import ControlPlane, binaries
from tests.cni.adapter import Adapter, Pools
from tests.cni.fleet import Fleet, Story, fleet

pytestmark = [pytest.mark.api, pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")]
SUITES = ("bridge", "macvlan", "ptp")
# These want routes of their pools; and they wait for IPv6's duplicate address detection, so each is run by itself.
DUAL_STACK = "dual-stack ptp link"
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

OLD = "Berth speaks 0.3.0 and later"
TWO = "Berth gives an interface one address of a family, the case wants two of IPv6"
WORDS = "the case wants host-local's very words when CHECK is refused; Berth's have the same code, and say more"
# Of a case with a name that another has had before, the name ends in its number.
CANNOT = {
    r"\[0\.[12]\.0\] (\(\d\) configures and deconfigures a bridge|\(\d\) creates a bridge with a stable MAC"
    r"|uses an explicit MAC|checks ip release|configures mac spoof-check|.*IPAM DNS"
    r"|configures and deconfigures a (macvlan|ptp|dual-stack ptp) link|deconfigures an unconfigured)": OLD,
    r"deconfigures an unconfigured bridge with DEL( 2)?$": OLD,
    r"\[.*\] \(3\) configures and deconfigures a bridge(,| and) veth with default route": TWO,
    r"\[0\.3\.[01]\] (configures.* macvlan link with ADD/CHECK/DEL|configures.* ptp link|.*IPAM DNS)": WORDS,
}
# What a kernel may lack, how that is seen, and the cases that need it.
NEEDS_VLAN = ("unshare", "--net", "ip", "link", "add", "type", "bridge", "vlan_filtering", "1")
VLAN_CASES = "vlan id 100|vlanID 100|vlan 100|vlanTrunk"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of the cases that were run, by their names: how many passed, and what was said of the others."""

    passed: frozenset[str]
    failed: dict[str, str]

    def reasons(self) -> list[str]:
        """Why those that failed did; every case that passed could, every one that failed could not."""
        unexpected = {name: said for name, said in self.failed.items() if cannot(name) is None}
        assert not unexpected, json.dumps(unexpected, indent=1)
        assert not [name for name in self.passed if cannot(name) is not None]
        return [reason for name in self.failed if (reason := cannot(name)) is not None]


def cannot(name: str) -> str | None:
    return next((reason for pattern, reason in CANNOT.items() if re.match(pattern, name)), None)


@pytest.fixture(scope="module")
def three_nodes(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet(api_server, tmp_path_factory.mktemp("fleet"), nodes=len(SUITES)) as made:
        yield made


@pytest.fixture
async def story(three_nodes: Fleet) -> AsyncIterator[Story]:
    async with three_nodes.story() as story:
        yield story


@pytest.fixture
async def adapters(story: Story, tmp_path: Path) -> AsyncIterator[dict[str, Adapter]]:
    """A node for each suite; the pools are the cluster's."""
    pools = Pools(story)
    async with AsyncExitStack() as stack:
        made = {}
        for suite, node in zip(SUITES, story.nodes, strict=True):
            (tmp_path / suite).mkdir()
            made[suite] = Adapter(pools, node, tmp_path / suite)
            await stack.enter_async_context(made[suite].serve())
        yield made


async def run_suite(suite: str, adapter: Adapter, **selection: str) -> Outcome:
    """In a mount namespace and a network namespace of its own: what a case leaves behind ends with it."""
    folder = await asyncio.to_thread(binaries.ensure, f"{suite}.test")
    report = adapter.folder / f"{uuid.uuid4().hex}.json"
    words = [str(folder / f"{suite}.test"), "-ginkgo.no-color", f"-ginkgo.json-report={report}"]
    words += [f"-ginkgo.{key}={value}" for key, value in selection.items()]
    script = 'mount -t tmpfs none /run && mkdir /run/netns && ip link set lo up && exec "$@"'
    child = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--net", "bash", "-c", script, "bash", *words),
        env={"PATH": f"{adapter.folder}:{os.environ['PATH']}", "TMPDIR": str(adapter.folder), **adapter.environment},
        cwd=adapter.folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(180):
            said, _ = await child.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
    assert report.exists(), said.decode()[-3000:]
    return read_report(json.loads(report.read_text()))


def read_report(report: list[dict[str, Any]]) -> Outcome:
    seen: Counter[str] = Counter()
    passed, failed = set(), {}
    for case in (each for each in report[0]["SpecReports"] if each["LeafNodeType"] == "It"):
        name = case["LeafNodeText"]
        seen[name] += 1
        if seen[name] > 1:
            name = f"{name} {seen[name]}"
        if case["State"] == "passed":
            passed.add(name)
        elif case["State"] != "skipped":
            failed[name] = case["Failure"]["Message"]
    return Outcome(frozenset(passed), failed)


async def held_by_failed_cases_alone(story: Story, reasons: list[str]) -> None:
    """A case that fails at its CHECK does not come to its DEL; every other has given back what it had."""
    assert len(await story.endpoints()) == reasons.count(WORDS)
    await story.empty(30)


async def test_suites_written_for_host_local_pass_over_berth(story: Story, adapters: dict[str, Adapter]) -> None:
    lacks_vlan = (await asyncio.to_thread(subprocess.run, NEEDS_VLAN, capture_output=True)).returncode != 0
    skip = f"{DUAL_STACK}|{VLAN_CASES}" if lacks_vlan else DUAL_STACK
    outcomes = await asyncio.gather(*(run_suite(suite, adapters[suite], skip=skip) for suite in SUITES))
    reasons = [reason for outcome in outcomes for reason in outcome.reasons()]
    figures = [(len(outcome.passed), len(outcome.failed)) for outcome in outcomes]
    assert figures == [(196, 37) if lacks_vlan else (254, 63), (138, 30), (23, 26)]
    await held_by_failed_cases_alone(story, reasons)


async def test_links_of_two_families_with_routes_are_as_with_host_local(
    story: Story, adapters: dict[str, Adapter]
) -> None:
    focus = [rf"\[{version}\].*{DUAL_STACK}" for version in VERSIONS]
    outcomes = await asyncio.gather(*(run_suite("ptp", adapters["ptp"], focus=each) for each in focus))
    assert [len(outcome.passed) for outcome in outcomes] == [0, 0, 0, 0, 1, 1, 1]
    await held_by_failed_cases_alone(story, [reason for outcome in outcomes for reason in outcome.reasons()])
