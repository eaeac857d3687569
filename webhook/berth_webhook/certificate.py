"""The webhook's own certificate: made, shared by its replicas, and renewed without an admission ever failing for it.

One Secret holds a CA, its key, and the serving certificate it signed; whoever writes it first wins (create if absent,
else a write conditional on the resourceVersion), the others read. The serving certificate is renewed long before it
expires, by the same CA. When the CA itself is renewed, the old one stays in the bundle until it expires, so that the
API server trusts both kinds of replica: those that have the new certificate and those that still serve the old.
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_LIFE = timedelta(days=3650)
SERVING_LIFE = timedelta(days=365)
# Renewed with this much left: three months in which the renewal may fail before anybody notices.
CA_SPARE = timedelta(days=730)
SERVING_SPARE = timedelta(days=90)
# A clock behind ours must not find the certificate not valid yet.
SKEW = timedelta(hours=1)

FIELDS = ("ca.crt", "ca.key", "tls.crt", "tls.key")


@dataclass(frozen=True, slots=True)
class Material:
    """All PEM. `bundle` is the CA that signs, first, and older ones that are still trusted."""

    bundle: bytes
    authority_key: bytes
    certificate: bytes
    key: bytes

    def data(self) -> dict[str, str]:
        """As a Secret's `data`."""
        contents = (self.bundle, self.authority_key, self.certificate, self.key)
        return {name: base64.b64encode(each).decode() for name, each in zip(FIELDS, contents, strict=True)}


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def from_secret(data: object) -> Material | None:
    """What a Secret holds; None when it holds nothing of use (empty, as installed, or damaged)."""
    if not isinstance(data, Mapping):
        return None
    try:
        contents = [base64.b64decode(data[name], validate=True) for name in FIELDS]
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    return Material(*contents)


def renewed(material: Material | None, hosts: Sequence[str], now: datetime) -> Material | None:
    """What is to be used instead of `material`; None when it is good."""
    found = _load(material) if material is not None else None
    if found is None:
        return _make(_authority(now), (), hosts, now)
    authorities, signer, serving = found
    if signer.certificate.not_valid_after_utc - now < CA_SPARE:
        return _make(_authority(now), authorities, hosts, now)
    fits = set(hosts) <= set(_names(serving.certificate)) and _signed(serving.certificate, signer.certificate)
    if serving.certificate.not_valid_after_utc - now < SERVING_SPARE or not fits:
        return _make(signer, authorities[1:], hosts, now)
    return None


def _load(material: Material) -> tuple[list[x509.Certificate], Pair, Pair] | None:
    """None when anything in it can't be used or does not belong together."""
    try:
        authorities = x509.load_pem_x509_certificates(material.bundle)
        signer = _pair(authorities[0], material.authority_key)
        serving = _pair(x509.load_pem_x509_certificate(material.certificate), material.key)
    except (ValueError, TypeError, IndexError):
        return None
    return (authorities, signer, serving) if signer is not None and serving is not None else None


def _pair(certificate: x509.Certificate, key: bytes) -> Pair | None:
    private = serialization.load_pem_private_key(key, password=None)
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != certificate.public_key():
        return None
    return Pair(certificate, private)


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # each way of not being signed has a class of its own
        return False
    return True


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return names.value.get_values_for_type(x509.DNSName)


def _make(signer: Pair, older: Sequence[x509.Certificate], hosts: Sequence[str], now: datetime) -> Material:
    key = ec.generate_private_key(ec.SECP256R1())
    serving = (
        _builder(hosts[0], signer.certificate.subject, key, now, min(now + SERVING_LIFE, _end(signer)))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False)
        .sign(signer.key, hashes.SHA256())
    )
    trusted = [signer.certificate, *(each for each in older if each.not_valid_after_utc > now)]
    bundle = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in trusted)
    return Material(bundle, _pem(signer.key), serving.public_bytes(serialization.Encoding.PEM), _pem(key))


def _authority(now: datetime) -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    # The serial in the name: two CAs of one name and different keys would confuse whoever builds a chain.
    name = f"berth-webhook-ca-{x509.random_serial_number():x}"[:60]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(name, subject, key, now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_certificate_signing(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Pair(certificate, key)


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(end)
    )


def _certificate_signing() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _end(pair: Pair) -> datetime:
    return pair.certificate.not_valid_after_utc


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
