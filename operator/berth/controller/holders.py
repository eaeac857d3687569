"""Who holds which address: Endpoints that say so, and Pods for whom one is kept without an Endpoint."""

from collections.abc import Iterator

from berth.controller.claims import Berth

Attachment = tuple[str, str, str]  # as `Claim.attachment`


class Holders:
    """Confirmed claims by address. Two may say that they hold one for a moment: the end of the first is seen late."""

    def __init__(self) -> None:
        self._holders: dict[Berth, str] = {}
        self._heirs: dict[Berth, list[str]] = {}

    def __contains__(self, berth: object) -> bool:
        return berth in self._holders

    def of(self, berth: Berth) -> str | None:
        return self._holders.get(berth)

    def in_pool(self, pool: str) -> Iterator[tuple[int, str]]:
        """Address and claim."""
        return ((address, claim) for (name, address), claim in self._holders.items() if name == pool)

    def hold(self, berth: Berth, uid: str) -> str:
        """The holder: another than `uid` if it had it before; `uid` then has it when that one lets go."""
        holder = self._holders.setdefault(berth, uid)
        if holder != uid and uid not in self._heirs.setdefault(berth, []):
            self._heirs[berth].append(uid)
        return holder

    def let_go(self, berth: Berth, uid: str) -> bool:
        """True when nobody holds it now."""
        heirs = self._heirs.get(berth, [])
        if self._holders.get(berth) != uid:
            if uid in heirs:
                heirs.remove(uid)
            return False
        if heirs:
            self._holders[berth] = heirs.pop(0)
            return False
        del self._holders[berth]
        self._heirs.pop(berth, None)
        return True


class Kept:
    """Addresses whose Endpoint is gone and whose Pod lives, by attachment."""

    def __init__(self) -> None:
        self._kept: dict[Attachment, list[Berth]] = {}
        self._of_pod: dict[str, set[Attachment]] = {}

    def __contains__(self, attachment: object) -> bool:
        return attachment in self._kept

    def of(self, attachment: Attachment) -> list[Berth]:
        return self._kept[attachment]

    def berths(self) -> set[Berth]:
        return {berth for berths in self._kept.values() for berth in berths}

    def pods(self) -> set[str]:
        return {attachment[0] for attachment in self._kept}

    def keep(self, attachment: Attachment, berth: Berth) -> None:
        self._kept.setdefault(attachment, []).append(berth)
        self._of_pod.setdefault(attachment[0], set()).add(attachment)

    def drop(self, berth: Berth) -> None:
        """This one address is kept no longer."""
        for attachment, berths in list(self._kept.items()):
            if berth in berths:
                berths.remove(berth)
                if not berths:
                    self.give_up(attachment)

    def give_up(self, attachment: Attachment) -> list[Berth]:
        """It claims anew: what was kept for it is kept no longer."""
        self._of_pod.get(attachment[0], set()).discard(attachment)
        return self._kept.pop(attachment)

    def parted(self, pod_uid: str) -> list[Berth]:
        """The Pod is gone: what was kept for it is kept no longer."""
        return [berth for attachment in self._of_pod.pop(pod_uid, ()) for berth in self._kept.pop(attachment, ())]
