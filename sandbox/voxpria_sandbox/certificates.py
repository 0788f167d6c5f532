"""The sandbox's own certificate authority: it stands for the providers' hosts, on this machine only."""

import datetime as dt
import ipaddress
import os
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from voxpria_sandbox.accounts import HOSTS

AUTHORITY = "authority.pem"
_AUTHORITY_DAYS = 3650
_DAYS = 365
_RENEWED_BEFORE_DAYS = 30


def server_context(folder: Path, address: str) -> ssl.SSLContext:
    """Return the TLS context of the SIP agent, making or renewing its authority and certificate as needed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (_is_good(folder / AUTHORITY, None) and (folder / "authority.key").exists()):
        _make_authority(folder)
        (folder / "agent.pem").unlink(missing_ok=True)
    if not (_is_good(folder / "agent.pem", address) and (folder / "agent.key").exists()):
        _make_certificate(folder, address)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(folder / "agent.pem", folder / "agent.key")
    return context


def _is_good(path: Path, address: str | None) -> bool:
    """Whether a certificate is there, is valid for a while yet, and names this address."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    if certificate.not_valid_after_utc < _now() + dt.timedelta(days=_RENEWED_BEFORE_DAYS):
        return False
    if address is None:
        return True
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return ipaddress.ip_address(address) in names.get_values_for_type(x509.IPAddress)


def _make_authority(folder: Path) -> None:
    for before in ("ca.pem", "ca.key"):  # of earlier releases, not allowed to sign for all of HOSTS
        (folder / before).unlink(missing_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("VoxPria sandbox authority")
    builder = _builder(name, name, key, _AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    permitted = [x509.DNSName(host) for host in HOSTS]  # should the key leak, it is of no use for other names
    builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    builder = builder.add_extension(_usage(is_authority=True), critical=True)
    _write_key(folder / "authority.key", key)
    _write(folder / AUTHORITY, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644)


def _make_certificate(folder: Path, address: str) -> None:
    authority = x509.load_pem_x509_certificate((folder / AUTHORITY).read_bytes())
    signer = serialization.load_pem_private_key((folder / "authority.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    names = [*(x509.DNSName(host) for host in HOSTS), x509.IPAddress(ipaddress.ip_address(address))]
    builder = _builder(authority.subject, _name("VoxPria sandbox SIP agent"), key, _DAYS)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(is_authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(issuer_key, critical=False)
    _write_key(folder / "agent.key", key)
    _write(folder / "agent.pem", builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM), 0o644)


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = _now()
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - dt.timedelta(hours=1)).not_valid_after(now + dt.timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    plain = serialization.NoEncryption()
    data = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    _write(path, data, 0o600)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole or not at all, never readable by others for a moment."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    partial.chmod(mode)
    partial.replace(path)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
