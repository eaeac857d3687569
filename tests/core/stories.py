"""Pools and claims with nothing said but what a story needs."""

from dataclasses import replace

from berth.core.claim import Claim, Surroundings
from berth.core.ledger import Image, Ledger
from berth.core.pool import Audience, Pool
from berth.core.ranges import Family, Subnet, parse_subnet

AROUND = Surroundings(
    pod_labels={"app": "web"}, namespace_labels={"team": "blue"}, node_labels={"zone": "a", "gpu": "yes"}
)
CLAIM = Claim(
    uid="uid-1",
    namespace="shop",
    name="web-0-eth0",
    pod="web-0",
    pod_uid="pod-1",
    node="node-1",
    network="lan",
    interface="eth0",
    container="c1",
)


def pool_of(name: str, subnet: str, audience: Audience | None = None, **said: bool) -> Pool:
    parsed = parse_subnet(subnet)
    assert isinstance(parsed, Subnet)
    pool = Pool(name, parsed, parsed.hosts(), audience=audience or Audience())
    return replace(pool, default=said.get("default", False), disabled=said.get("disabled", False))


def ledgers_of(*pools: Pool) -> dict[str, Ledger]:
    return {pool.name: Ledger(Image(), pool.offered) for pool in pools}


def naming(ipv4: str = "", ipv6: str = "", families: str = "") -> Claim:
    """A claim that names pools and families, separated by spaces."""
    pools = {Family.IPV4: tuple(ipv4.split()), Family.IPV6: tuple(ipv6.split())}
    return replace(CLAIM, pools=pools, families=frozenset(Family(family) for family in families.split()))
