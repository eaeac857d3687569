"""Where the certificate is kept and who is told of its CA: a Secret, and the ValidatingWebhookConfiguration.

Both are written only when they differ, and only if nobody else has written meanwhile: two replicas agree on what the
first one wrote. The configuration is looked at again and again, since whoever installs it anew installs it without CA.
"""

import base64
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from berth.kube.client import Api, Object
from berth.kube.errors import AlreadyExists, BadConfiguration, Conflict, Denied, NotFound
from berth.kube.resources import Resource
from berth_webhook.certificate import Material, from_secret, renewed
from berth_webhook.facts import section

log = logging.getLogger(__name__)

SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)
ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Place:
    """The names the command line gives."""

    namespace: str
    secret: str
    service: str
    configuration: str

    @property
    def hosts(self) -> list[str]:
        """Under which the API server calls the Service, the one it verifies first."""
        host = f"{self.service}.{self.namespace}"
        return [f"{host}.svc", host, f"{host}.svc.cluster.local"]


async def obtain(api: Api, place: Place, now: datetime, mine: Material | None = None) -> Material:
    """The certificate all replicas share, made or renewed if that is due. `mine` is what this replica serves: if the
    Secret was lost it is put back, for the API server trusts no other CA yet."""
    path = SECRETS.path(place.secret, namespace=place.namespace)
    for _ in range(ATTEMPTS):
        try:
            secret = await api.get(path)
        except NotFound:
            secret = None
        stored = from_secret((secret or {}).get("data"))
        material = stored or mine
        fresh = renewed(material, place.hosts, now) or material
        assert fresh is not None, "what there is not is made"
        if fresh == stored:
            return stored
        try:
            await _write(api, place, secret, fresh)
        except (AlreadyExists, Conflict):
            continue  # another replica was first: use what it has written
        except Denied as error:
            raise BadConfiguration(
                f"--secret {place.secret}: may not be written in namespace {place.namespace} ({error.message}):"
                " apply config/webhook, or give --cert and --key"
            ) from None
        except NotFound:
            raise BadConfiguration(
                f"--namespace {place.namespace}: does not exist: create it, or name the one Berth is installed in"
            ) from None
        log.info("wrote a new certificate to Secret %s/%s", place.namespace, place.secret)
        return fresh
    raise Conflict(409, "Conflict", f"Secret {place.namespace}/{place.secret} changes all the time")


async def _write(api: Api, place: Place, secret: Object | None, material: Material) -> None:
    body: dict[str, Any] = (
        dict(secret)
        if secret is not None
        else {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": place.secret, "namespace": place.namespace},
        }
    )
    body["data"] = {**section(body, "data"), **material.data()}
    if secret is None:
        await api.create(SECRETS.path(namespace=place.namespace), body)
    else:
        await api.replace(SECRETS.path(place.secret, namespace=place.namespace), body)


async def announce(api: Api, place: Place, bundle: bytes) -> bool:
    """Give the CA to the configuration, where it calls our Service and knows another. False: it is not installed."""
    path = CONFIGURATIONS.path(place.configuration)
    for _ in range(ATTEMPTS):
        try:
            found = await api.get(path)
        except NotFound:
            return False
        webhooks = with_bundle(found.get("webhooks") or [], place, bundle)
        if webhooks == found.get("webhooks"):
            return True
        metadata = {"resourceVersion": found["metadata"]["resourceVersion"]}
        try:
            # A merge patch replaces a list as a whole, so it says which version of the list it has read.
            await api.patch(path, {"metadata": metadata, "webhooks": webhooks})
        except (Conflict, NotFound):
            continue
        log.info("gave the CA to ValidatingWebhookConfiguration %s", place.configuration)
        return True
    raise Conflict(409, "Conflict", f"ValidatingWebhookConfiguration {place.configuration} changes all the time")


def with_bundle(webhooks: list[Any], place: Place, bundle: bytes) -> list[Any]:
    """The webhooks of a configuration, those that call our Service with this CA."""
    encoded = base64.b64encode(bundle).decode()
    told: list[Any] = []
    for webhook in webhooks:
        service = section(webhook, "clientConfig", "service")
        if (service.get("name"), service.get("namespace")) == (place.service, place.namespace):
            webhook = {**webhook, "clientConfig": {**webhook["clientConfig"], "caBundle": encoded}}
        told.append(webhook)
    return told
