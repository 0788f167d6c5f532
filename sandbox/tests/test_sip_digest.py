"""Digest, from both sides."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_sandbox.sip.digest import (
    NONCE_SECONDS,
    Algorithm,
    Credentials,
    Gatekeeper,
    answer,
    ha1,
    parse_parameters,
    response_value,
)
from voxpria_sip.uri import MalformedError

pytestmark = pytest.mark.unit
REALM, URI = "sip.test.voxpria.com", "sip:+15555551234@sip.test.voxpria.com"
USER = Credentials("test_user", "test_pass")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm: str, response: str) -> None:
    params = {
        "uri": "/dir/index.html",
        "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        "nc": "00000001",
        "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
        "qop": "auth",
    }
    secret = ha1(algorithm, "Mufasa", "http-auth@example.org", "Circle of Life")
    assert response_value(algorithm, secret, "GET", params) == response


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256"])
def test_each_algorithm_alone(algorithm: Algorithm) -> None:
    keeper = Gatekeeper((algorithm,))
    header = answer(keeper.challenges(REALM), USER, "INVITE", URI)
    assert header is not None
    assert f"algorithm={algorithm}" in header
    assert keeper.judge(header, "INVITE", REALM, [USER.secrets(REALM)]) == "granted"


def test_a_client_takes_the_first_challenge_that_it_can_answer() -> None:
    challenges = ['Digest realm="r", nonce="n", algorithm=SHA-512-256', "Basic x", 'Digest realm="r", nonce="n"']
    header = answer(challenges, USER, "INVITE", URI)
    assert header is not None
    assert parse_parameters(header)["algorithm"] == "MD5"
    assert answer(challenges[:2], USER, "INVITE", URI) is None


def test_only_the_right_password_user_method_and_realm_are_granted() -> None:
    keeper, users = Gatekeeper(), [USER.secrets(REALM)]
    challenges = keeper.challenges(REALM)
    right = answer(challenges, USER, "INVITE", URI)
    assert keeper.judge(None, "INVITE", REALM, users) == "absent"
    assert keeper.judge(right, "INVITE", REALM, users) == "granted"
    assert keeper.judge(right, "BYE", REALM, users) == "wrong"
    assert keeper.judge(right, "INVITE", "other", users) == "wrong"
    assert keeper.judge(right, "INVITE", REALM, []) == "wrong"
    for credentials in (Credentials("test_user", "wrong"), Credentials("other", "test_pass")):
        header = answer(challenges, credentials, "INVITE", URI)
        assert keeper.judge(header, "INVITE", REALM, users) == "wrong"


def test_an_old_nonce_is_stale_and_a_foreign_one_too() -> None:
    clock = Clock()
    keeper, users = Gatekeeper(clock=clock), [USER.secrets(REALM)]
    header = answer(keeper.challenges(REALM), USER, "INVITE", URI)
    clock.now += NONCE_SECONDS
    assert keeper.judge(header, "INVITE", REALM, users) == "granted"
    clock.now += 1
    assert keeper.judge(header, "INVITE", REALM, users) == "stale"
    assert "stale=true" in keeper.challenges(REALM, is_stale=True)[0]
    foreign = answer(Gatekeeper(clock=clock).challenges(REALM), USER, "INVITE", URI)
    assert keeper.judge(foreign, "INVITE", REALM, users) == "stale"


@given(st.text(max_size=100))
def test_any_authorization_is_judged(text: str) -> None:
    keeper, users = Gatekeeper(), [USER.secrets(REALM)]
    assert keeper.judge(text, "INVITE", REALM, users) == "wrong"
    assert keeper.judge("Digest " + text, "INVITE", REALM, users) == "wrong"


_word = st.text(st.characters(codec="ascii", min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)


@given(_word, _word)
def test_any_name_and_password_work(username: str, password: str) -> None:
    keeper, user = Gatekeeper(), Credentials(username, password)
    header = answer(keeper.challenges(REALM), user, "OPTIONS", URI)
    assert keeper.judge(header, "OPTIONS", REALM, [user.secrets(REALM)]) == "granted"


@pytest.mark.parametrize(
    "text", ["Basic abc", "Digest", "Digest a", 'Digest a="b', "Digest a=b, a=c", "Digest a=b c=d"]
)
def test_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_parameters(text)


def test_secrets_do_not_show() -> None:
    assert "test_pass" not in repr(USER)
    assert USER.secrets(REALM).ha1["MD5"] not in repr(USER.secrets(REALM))
