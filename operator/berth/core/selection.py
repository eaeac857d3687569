"""Which pools may serve a claim, in which order, and why the others may not.

A claim that names pools gets those, in its order. A family it names no pool for gets the default pools that may serve
it, the narrower audience first, then by name. The families wanted are those asked for; else those of the pools named;
else those of the default pools. Every pool looked at leaves a verdict, so that the answer can be explained.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from berth.core.claim import Claim, Surroundings
from berth.core.pool import Audience, Pool
from berth.core.ranges import Family
from berth.core.reasons import Reason
from berth.core.routing import unroutable


@dataclass(frozen=True, slots=True)
class Offer:
    """A pool as selection sees it: its spec, and whether it serves (its condition Ready)."""

    pool: Pool
    serving: bool


@dataclass(frozen=True, slots=True)
class Passed:
    """A pool that was looked at and passed over, and why."""

    pool: str
    why: str


@dataclass(frozen=True, slots=True)
class Choice:
    """The pools to try for each family wanted, in order, and those passed over."""

    candidates: Mapping[Family, tuple[Pool, ...]]
    passed: tuple[Passed, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """No address for this claim as things are: the reason, and a sentence that says what to do. `passed`: the pools
    looked at, for who wants them one by one."""

    reason: Reason
    message: str
    passed: tuple[Passed, ...] = ()


def choose(claim: Claim, around: Surroundings, offers: Mapping[str, Offer]) -> Choice | Refused:
    choice = _choose(claim, around, offers)
    if isinstance(choice, Choice) and (stray := claim.routing.families - choice.candidates.keys()):
        got = " and ".join(sorted(choice.candidates))
        message = (
            f"an {min(stray)} route is asked for, and {claim.interface} is to have {got} only: correct one of them"
        )
        return Refused(Reason.BAD_ANNOTATION, message, choice.passed)
    return choice


def _choose(claim: Claim, around: Surroundings, offers: Mapping[str, Offer]) -> Choice | Refused:
    named = {
        family: names
        for family, names in claim.pools.items()
        if names and (not claim.families or family in claim.families)
    }
    if not named:
        return _default(claim, around, offers.values())
    choice = _named(claim, around, offers, named)
    unnamed = claim.families - named.keys()
    if not unnamed or isinstance(choice, Refused):
        return choice
    rest = _default(replace(claim, families=unnamed), around, offers.values())
    if isinstance(rest, Refused):
        return rest
    candidates = {**choice.candidates, **rest.candidates}
    return Choice({family: candidates[family] for family in sorted(candidates)}, (*choice.passed, *rest.passed))


def _named(
    claim: Claim, around: Surroundings, offers: Mapping[str, Offer], named: Mapping[Family, tuple[str, ...]]
) -> Choice | Refused:
    candidates: dict[Family, tuple[Pool, ...]] = {}
    passed: list[Passed] = []
    for family, names in named.items():
        missing = [name for name in names if name not in offers]
        if len(missing) == len(names):
            listed = ", ".join(missing)
            message = f"no IPPool {listed} exists: create it, or name another for {family}"
            return Refused(Reason.POOL_NOT_FOUND, message, tuple(Passed(name, "does not exist") for name in missing))
        passed += [Passed(name, "does not exist") for name in missing]
        fit: list[Pool] = []
        for offer in (offers[name] for name in names if name in offers):
            why = _unfit(claim, around, offer, family)
            if why is None:
                fit.append(offer.pool)
            else:
                passed.append(Passed(offer.pool.name, why))
        if not fit:
            message = f"none of the {family} pools named may serve: {_list(passed)}"
            return Refused(Reason.POOL_UNSUITABLE, message, tuple(passed))
        candidates[family] = tuple(fit)
    return Choice(candidates, tuple(passed))


def _default(claim: Claim, around: Surroundings, offers: Iterable[Offer]) -> Choice | Refused:
    passed: list[Passed] = []
    fit: dict[Family, list[Pool]] = {}
    disabled: set[Family] = set()
    for offer in offers:
        if not offer.pool.default:
            continue
        why = _unfit(claim, around, offer, offer.pool.family)
        if why is None:
            fit.setdefault(offer.pool.family, []).append(offer.pool)
            continue
        passed.append(Passed(offer.pool.name, why))
        if offer.pool.disabled and _unwelcome(claim, around, offer.pool.audience) is None:
            # A family must not vanish from a dual-stack cluster because its only pool is disabled for a moment.
            disabled.add(offer.pool.family)
    wanted = claim.families or frozenset({*fit, *disabled})
    for family in sorted(wanted):
        if family not in fit:
            return Refused(
                Reason.NO_MATCHING_POOL,
                f"no default {family} pool may serve this Pod"
                + (f": {_list(passed)}" if passed else ": set spec.default on an IPPool, or name a pool"),
                tuple(passed),
            )
    if not wanted:
        looked = f": {_list(passed)}" if passed else ": set spec.default on an IPPool, or name a pool"
        return Refused(Reason.NO_MATCHING_POOL, "no default pool may serve this Pod" + looked, tuple(passed))
    return Choice(
        {family: narrowest_first(fit[family]) for family in sorted(wanted)},
        tuple(passed),
    )


def narrowest_first(pools: Iterable[Pool]) -> tuple[Pool, ...]:
    """The order of pools that nobody has put in order."""
    return tuple(sorted(pools, key=lambda pool: (-pool.audience.narrowness, pool.name)))


def _unfit(claim: Claim, around: Surroundings, offer: Offer, family: Family) -> str | None:
    """Why this pool may not serve this claim; None when it may."""
    pool = offer.pool
    if pool.family is not family:
        return f"is {pool.family}"
    if pool.disabled:
        return "is disabled"
    if not offer.serving:
        return "is not Ready"
    if pool.slice_size is not None and around.application == "":
        return f"is cut into slices for applications, and Pod {claim.pod} has no controller"
    if pool.slice_size is None and claim.slice_size is not None:
        return "is not cut into slices, and a slice is asked for"
    return _unwelcome(claim, around, pool.audience) or unroutable(pool, claim.routing)


def _unwelcome(claim: Claim, around: Surroundings, audience: Audience) -> str | None:
    if audience.nodes and claim.node not in audience.nodes:
        return f"does not list node {claim.node}"
    if audience.node_selector is not None and not audience.node_selector.matches(around.node_labels):
        return f"does not select node {claim.node}"
    if audience.namespaces and claim.namespace not in audience.namespaces:
        return f"does not list namespace {claim.namespace}"
    if audience.namespace_selector is not None and not audience.namespace_selector.matches(around.namespace_labels):
        return f"does not select namespace {claim.namespace}"
    if audience.pod_selector is not None and not audience.pod_selector.matches(around.pod_labels):
        return f"does not select Pod {claim.pod}"
    if audience.networks and claim.network not in audience.networks:
        return f"does not list network {claim.network}"
    return None


def _list(passed: Iterable[Passed]) -> str:
    return "; ".join(f"{each.pool} {each.why}" for each in passed)
