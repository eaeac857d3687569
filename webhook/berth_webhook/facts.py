"""From what the API holds to what the rules ask about. Pure, and never surprised: an object that can't be understood
becomes a fact that says so."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from berth.api.ippool import IPPoolSpec, LedgerEntry
from berth.api.reservedip import ReservedIPSpec
from berth.core.admission import Around, Held, held_in
from berth.core.advice import Neighbour, Reservation
from berth.core.draft import Draft, Written, examine
from berth.core.pool import BadField, Pool, Route
from berth.core.ranges import Family, Malformed, Ranges, Subnet, parse_address, parse_subnet

Object = Mapping[str, Any]


def section(thing: object, *path: str) -> Object:
    """`thing[path…]` if it is a mapping all the way down; else an empty one."""
    for key in path:
        thing = thing.get(key) if isinstance(thing, Mapping) else None
    return thing if isinstance(thing, Mapping) else {}


def name_of(thing: object) -> str:
    name = section(thing, "metadata").get("name")
    return name if isinstance(name, str) else ""


# --- specs ------------------------------------------------------------------------------------------------------------


def draft_of(name: str, thing: Object) -> Draft:
    """An IPPool's spec, looked at."""
    spec = _spec(thing)
    if not isinstance(spec, IPPoolSpec):
        return Draft(name, None, spec)
    written = Written(
        spec.subnet, spec.ips, spec.exclude_ips, spec.gateway, tuple(Route(each.dst, each.gw) for each in spec.routes)
    )
    return examine(name, written, spec.to_core(name))


def _spec(thing: Object) -> IPPoolSpec | tuple[BadField, ...]:
    try:
        return IPPoolSpec.model_validate(thing.get("spec"))
    except ValidationError as error:
        return bad_fields(error)


def reserved_ips(thing: Object) -> tuple[str, ...] | tuple[BadField, ...]:
    """A ReservedIP's list."""
    try:
        return ReservedIPSpec.model_validate(thing.get("spec")).ips
    except ValidationError as error:
        return bad_fields(error)


def bad_fields(error: ValidationError) -> tuple[BadField, ...]:
    """What a model could not read, as paths of the object."""
    return tuple(
        BadField(
            "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in each["loc"]),
            _said(each["msg"]),
        )
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    )


def _said(message: str) -> str:
    """pydantic's words, without Python's."""
    said = re.sub(r"valid dictionary or instance of \w+", "JSON object", message).replace("valid tuple", "JSON list")
    return said[:1].lower() + said[1:]


# --- ledgers ----------------------------------------------------------------------------------------------------------


def held_of(thing: Object, family: Family | None, within: Ranges | None = None) -> Ranges | BadField:
    """The addresses in use according to a pool's ledger (those `within`, if that is all one asks for), or why it can't
    be read."""
    ledger = section(thing, "status").get("ledger")
    if ledger is None:
        return Ranges()
    try:
        entry = LedgerEntry.model_validate(ledger)
    except ValidationError as error:
        bad = bad_fields(error)[0]
        return BadField(bad.field.replace("spec", "status.ledger", 1), bad.why)
    if not entry.pending and not entry.blocks:
        return Ranges()
    if family is None:
        return BadField("spec.subnet", "does not say which family the ledger is of")
    image = entry.to_core(family)
    return image if isinstance(image, BadField) else held_in(image, within)


def family_of(thing: Object) -> Family | None:
    subnet = _subnet(thing)
    return subnet.family if subnet is not None else None


def _subnet(thing: Object) -> Subnet | None:
    text = section(thing, "spec").get("subnet")
    subnet = parse_subnet(text) if isinstance(text, str) else None
    return None if isinstance(subnet, Malformed) else subnet


def held_by_endpoints(pool: str, doubt: str, endpoints: Iterable[object]) -> Held:
    """What the Endpoints say is in use of a pool whose own ledger can't be read. It lacks only what was granted and
    never confirmed, which no Pod uses, and addresses kept for a Pod whose Endpoint was deleted, which nobody knows."""
    runs: list[tuple[int, int]] = []
    for endpoint in endpoints:
        entries = section(endpoint, "status").get("addresses")
        for entry in entries if isinstance(entries, list) else []:
            text = section(entry).get("address")
            if section(entry).get("pool") == pool and isinstance(text, str):
                address = parse_address(text.partition("/")[0])
                if not isinstance(address, Malformed):
                    runs.append((address[1], address[1]))
    return Held(Ranges.of(runs), doubt)


# --- everything else there is -----------------------------------------------------------------------------------------


def around(name: str, mine: Pool | None, pools: Iterable[object], reserved: Iterable[object]) -> Around:
    """All but the pool `name`, which `mine` describes. Of what the others hold only what it would hand out counts."""
    neighbours: list[Neighbour] = []
    unread: list[tuple[str, str]] = []
    for thing in pools:
        other = name_of(thing)
        if not isinstance(thing, Mapping) or other == name:
            continue
        subnet, pool = _subnet(thing), _pool(other, thing)
        if subnet is None:
            unread.append((other, "spec.subnet"))
            continue
        if isinstance(pool, BadField):
            unread.append((other, pool.field))
        within = mine.offered if mine is not None and mine.family is subnet.family else Ranges()
        held = held_of(thing, subnet.family, within)
        neighbours.append(
            Neighbour(
                other,
                subnet,
                pool if isinstance(pool, Pool) else None,
                held if isinstance(held, Ranges) else Ranges(),
            )
        )
    return Around(tuple(neighbours), tuple(unread), tuple(_reservations(reserved)))


def _pool(name: str, thing: Object) -> Pool | BadField:
    spec = _spec(thing)
    return spec.to_core(name) if isinstance(spec, IPPoolSpec) else spec[0]


def _reservations(reserved: Iterable[object]) -> Iterable[Reservation]:
    for thing in reserved:
        if isinstance(thing, Mapping):
            try:
                addresses = ReservedIPSpec.model_validate(thing.get("spec")).to_core()
            except ValidationError:
                continue
            if not isinstance(addresses, BadField):
                yield Reservation(name_of(thing), addresses)


def held_by_pool(pools: Iterable[object], asked: Mapping[Family, Ranges]) -> dict[str, tuple[Family, Ranges]]:
    """What each pool's ledger says is in use, of the addresses asked for."""
    found: dict[str, tuple[Family, Ranges]] = {}
    for thing in pools:
        if isinstance(thing, Mapping) and (family := family_of(thing)) is not None:
            held = held_of(thing, family, asked[family])
            if isinstance(held, Ranges):
                found[name_of(thing)] = (family, held)
    return found
