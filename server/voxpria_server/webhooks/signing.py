"""Signatures of a delivery. Pure.

Two schemes stand side by side, so that a receiver may check either:

- `X-VoxPria-Signature`: lowercase hex HMAC-SHA256 of the body, keyed with the secret's UTF-8 bytes as they are
  (a `whsec_` at its front included). This is what the API reference's Node snippet computes.
- Standard Webhooks (`webhook-id`, `webhook-timestamp`, `webhook-signature`), which binds id and time too. Its key
  is what every library of that specification makes of the secret: what follows an optional `whsec_`, base64-decoded.
  A secret of the user's own is often not base64; the libraries can't take it as it is, so for such a secret
  the key is its UTF-8 bytes, and the receiver gives the library `whsec_` + base64 of the secret.
"""

import base64
import binascii
import hmac
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime

SECRET_PREFIX = "whsec_"  # noqa: S105  (public; what follows it is the secret)
_SECRET_BYTES = 24


def new_secret() -> str:
    """Return a new random secret: `whsec_` and 24 bytes as base64."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def headers(
    secret: str, body: bytes, *, message_id: str, at: datetime, former: Sequence[str] = ()
) -> Mapping[str, str]:
    """Return the headers that sign `body`. `at` is the time of this attempt, `message_id` stays over attempts.

    `former` secrets that are still valid sign too: in the list that Standard Webhooks has for it, and in one such list
    (between spaces, newest first) in `X-VoxPria-Signature-Former`. `X-VoxPria-Signature` has room for one, and that is
    the new secret's: a receiver that is given the new secret works from then on, and what it refused before is
    repeated. The other way round it would fail for the rest of the day.
    """
    stamp = str(int(at.timestamp()))
    signed = b"%s.%s.%s" % (message_id.encode(), stamp.encode(), body)
    signatures = (_standard_signature(one, signed) for one in (secret, *former))
    of_former = " ".join(hex_signature(one, body) for one in former)
    return {
        "X-VoxPria-Signature": hex_signature(secret, body),
        **({"X-VoxPria-Signature-Former": of_former} if of_former else {}),
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(signatures),
    }


def hex_signature(secret: str, body: bytes) -> str:
    """Return the lowercase hex HMAC-SHA256 of `body`."""
    return hmac.digest(secret.encode(), body, "sha256").hex()


def _standard_signature(secret: str, signed: bytes) -> str:
    """Return the signature of Standard Webhooks' scheme v1: of id, time and body, each but the first after a dot."""
    return f"v1,{base64.b64encode(hmac.digest(standard_key(secret), signed, 'sha256')).decode()}"


def standard_key(secret: str) -> bytes:
    """Return the key that Standard Webhooks uses for `secret`; see the module's text."""
    encoded = secret.removeprefix(SECRET_PREFIX)
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    return key or secret.encode()
