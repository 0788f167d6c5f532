"""Both schemes, checked by those who will check them: Node's snippet and the standardwebhooks library."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError
from voxpria_server.webhooks import signing

pytestmark = pytest.mark.unit
BODY = '{"event":"call.ended","data":{"text":"grüße"}}'.encode()


def test_the_bare_hex_signature_is_keyed_with_the_secret_as_it_is():
    expected = hmac.new(b"whsec_def456", BODY, hashlib.sha256).hexdigest()
    assert signing.hex_signature("whsec_def456", BODY) == expected


@pytest.mark.parametrize("secret", ["whsec_def456", "c2VjcmV0", "whsec_" + base64.b64encode(b"x" * 24).decode()])
def test_a_base64_secret_is_what_the_library_makes_of_it(secret):
    Webhook(secret).verify(BODY, dict(signing.headers(secret, BODY, message_id="evt_1", at=datetime.now(UTC))))


@pytest.mark.parametrize("secret", ["your_webhook_secret", "a secret of the user's own", "whsec_", "ключ", "x"])
def test_any_other_secret_is_taken_by_its_bytes(secret):
    for_library = "whsec_" + base64.b64encode(secret.encode()).decode()
    Webhook(for_library).verify(BODY, dict(signing.headers(secret, BODY, message_id="evt_1", at=datetime.now(UTC))))


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=64))
def test_every_secret_has_a_key(secret):
    assert signing.standard_key(secret)


@pytest.mark.parametrize("change", ["body", "id", "time"])
def test_a_changed_message_does_not_verify(change):
    now = datetime.now(UTC)
    signed = dict(signing.headers("whsec_def456", BODY, message_id="evt_1", at=now))
    body = BODY + b" " if change == "body" else BODY
    signed |= {"webhook-id": "evt_2"} if change == "id" else {}
    signed |= {"webhook-timestamp": str(int((now + timedelta(seconds=2)).timestamp()))} if change == "time" else {}
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_def456").verify(body, signed)


def test_a_new_secret_is_random_and_ready_for_the_libraries():
    first, second = signing.new_secret(), signing.new_secret()
    assert first != second
    assert signing.standard_key(first) == base64.b64decode(first.removeprefix("whsec_"))
