"""The webhook's own certificate over ten years and through every mishap: it is there, it fits, and it is trusted."""

import base64
import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from berth.kube.errors import BadConfiguration, Denied
from berth_webhook.certificate import CA_LIFE, CA_SPARE, SERVING_LIFE, SERVING_SPARE, Material, from_secret, renewed
from berth_webhook.tls import server_context
from berth_webhook.trust import CONFIGURATIONS, SECRETS, Place, announce, obtain, with_bundle
from tests.webhook.fakes import FakeApi

PLACE = Place("berth-system", "berth-webhook", "berth-webhook", "berth")
SECRET = SECRETS.path("berth-webhook", namespace="berth-system")
CONFIGURATION = CONFIGURATIONS.path("berth")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def made(now: datetime = NOW) -> Material:
    material = renewed(None, PLACE.hosts, now)
    assert material is not None
    return material


def trusted(material: Material, bundle: bytes) -> bool:
    """Whether a client with `bundle` accepts the certificate, by a real handshake in memory."""
    client = ssl.create_default_context(cadata=bundle.decode())
    server = server_context(material.certificate, material.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname="berth-webhook.berth-system.svc")
    two = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (one, two):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError:
                return False
    return one.version() is not None


def test_a_certificate_is_made_for_the_service_and_trusted_by_its_bundle() -> None:
    material = made(datetime.now(UTC))
    assert trusted(material, material.bundle)
    assert not trusted(material, made(datetime.now(UTC)).bundle)


def test_a_good_one_is_left_alone() -> None:
    assert renewed(made(), PLACE.hosts, NOW + SERVING_LIFE - SERVING_SPARE - DAY) is None


def test_the_serving_certificate_is_renewed_by_the_same_ca_before_it_expires() -> None:
    old = made()
    new = renewed(old, PLACE.hosts, NOW + SERVING_LIFE - SERVING_SPARE + DAY)
    assert new is not None
    assert new.bundle == old.bundle
    assert new.certificate != old.certificate


def test_a_new_ca_is_trusted_beside_the_old_one_until_that_expires() -> None:
    now = datetime.now(UTC)
    old = made(now - CA_LIFE + CA_SPARE - DAY)
    old = renewed(old, PLACE.hosts, now - 2 * DAY) or old  # the serving certificate is up to date
    new = renewed(old, PLACE.hosts, now)
    assert new is not None
    assert len(x509.load_pem_x509_certificates(new.bundle)) == 2
    assert trusted(new, new.bundle)
    assert trusted(old, new.bundle)
    later = renewed(new, PLACE.hosts, now + CA_SPARE + 2 * DAY)
    assert later is not None
    assert len(x509.load_pem_x509_certificates(later.bundle)) == 1


def test_over_twenty_years_of_daily_care_every_replica_is_trusted_at_every_moment() -> None:
    material = made()
    for day in range(0, 20 * 365, 7):
        now = NOW + day * DAY
        new = renewed(material, PLACE.hosts, now)
        if new is not None:
            old_signers = x509.load_pem_x509_certificates(material.bundle)
            assert old_signers[0] in x509.load_pem_x509_certificates(new.bundle)
            material = new
        serving = x509.load_pem_x509_certificate(material.certificate)
        assert serving.not_valid_before_utc < now < serving.not_valid_after_utc


@pytest.mark.parametrize("field", ["ca.crt", "ca.key", "tls.crt", "tls.key"])
@pytest.mark.parametrize("damage", ["", "!", "bm90IFBFTQ=="])
def test_a_damaged_secret_is_made_anew(field: str, damage: str) -> None:
    stored = from_secret({**made().data(), field: damage})
    assert stored is None or renewed(stored, PLACE.hosts, NOW) is not None


def test_parts_that_do_not_belong_together_are_made_anew() -> None:
    one, other = made().data(), made().data()
    for field in one:
        assert renewed(from_secret({**one, field: other[field]}), PLACE.hosts, NOW) is not None


def test_another_service_name_gets_another_certificate() -> None:
    assert renewed(made(), ["other.berth-system.svc"], NOW) is not None


async def test_the_first_replica_makes_it_and_the_second_reads_it() -> None:
    api = FakeApi()
    first = await obtain(api, PLACE, NOW)
    assert await obtain(api, PLACE, NOW) == first
    assert api.writes == ["create"]


async def test_the_empty_secret_of_the_installation_is_filled() -> None:
    api = FakeApi()
    api.store(SECRET, {"metadata": {"name": "berth-webhook", "labels": {"a": "b"}}})
    material = await obtain(api, PLACE, NOW)
    assert from_secret(api.objects[SECRET]["data"]) == material
    assert api.objects[SECRET]["metadata"]["labels"] == {"a": "b"}
    assert api.writes == ["replace"]


@pytest.mark.parametrize("installed", [True, False])
async def test_of_two_that_write_at_once_the_first_wins_and_the_other_uses_its(installed: bool) -> None:
    api, theirs = FakeApi(), made()
    if installed:
        api.store(SECRET, {"metadata": {"name": "berth-webhook"}})

    def other_replica() -> None:
        api.interrupt = lambda: None
        api.store(SECRET, {"metadata": {"name": "berth-webhook"}, "data": theirs.data()})

    api.interrupt = other_replica
    assert await obtain(api, PLACE, NOW) == theirs
    assert api.writes == []


async def test_a_lost_secret_is_put_back_as_it_was_for_nobody_trusts_another_ca_yet() -> None:
    api = FakeApi()
    mine = await obtain(api, PLACE, NOW)
    del api.objects[SECRET]
    assert await obtain(api, PLACE, NOW, mine) == mine
    assert from_secret(api.objects[SECRET]["data"]) == mine


async def test_without_the_right_to_write_the_secret_it_says_so() -> None:
    api = FakeApi()

    def denied() -> None:
        raise Denied(403, "Forbidden", "secrets is forbidden")

    api.interrupt = denied
    with pytest.raises(BadConfiguration, match="--secret berth-webhook: may not be written"):
        await obtain(api, PLACE, NOW)


def configuration(ca: str | None = None) -> dict[str, object]:
    service = {"name": "berth-webhook", "namespace": "berth-system"}
    ours = {"name": "ours", "clientConfig": {"service": service, **({"caBundle": ca} if ca else {})}}
    return {"metadata": {"name": "berth"}, "webhooks": [ours, {"name": "other", "clientConfig": {"url": "https://x"}}]}


async def test_the_configuration_gets_the_ca_once_and_nothing_else_changes() -> None:
    api = FakeApi()
    api.store(CONFIGURATION, configuration())
    assert await announce(api, PLACE, b"CA")
    assert api.objects[CONFIGURATION]["webhooks"] == configuration(base64.b64encode(b"CA").decode())["webhooks"]
    assert await announce(api, PLACE, b"CA")
    assert api.writes == ["patch"]


async def test_a_configuration_that_changes_meanwhile_is_read_again() -> None:
    api = FakeApi()
    api.store(CONFIGURATION, configuration())

    def somebody() -> None:
        api.interrupt = lambda: None
        api.store(CONFIGURATION, {**configuration(), "labels": "new"})

    api.interrupt = somebody
    assert await announce(api, PLACE, b"CA")
    assert api.objects[CONFIGURATION]["labels"] == "new"


async def test_a_configuration_that_is_not_installed_is_no_error() -> None:
    assert not await announce(FakeApi(), PLACE, b"CA")


def test_what_the_configuration_holds_is_not_believed() -> None:
    odd = [None, {}, {"clientConfig": None}, {"clientConfig": {"service": 1}}]
    assert with_bundle(odd, PLACE, b"CA") == odd
