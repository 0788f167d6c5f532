import ipaddress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_routing.decide import decide
from voxpria_routing.decision import Cause, Dial, Invite, Reject
from voxpria_routing.dialled import readings
from voxpria_routing.load import IDLE, Load
from voxpria_routing.media import Offered
from voxpria_routing.snapshot import EMPTY, Number, Snapshot, Trunk, decode, encode
from voxpria_routing.table import Table
from voxpria_routing.uris import next_hop_uri, request_uri

pytestmark = pytest.mark.unit

CARRIER = Trunk(
    id="trunk_a",
    account_id="acc_a",
    mode="test",
    name="Carrier",
    provider="generic",
    server="sip.example.com",
    port=5060,
    transport="tcp",
    allowed_addresses=("203.0.113.0/29", "2001:db8::/64"),
)
NUMBER = Number(
    id="phone_1",
    e164="+15555551234",
    account_id="acc_a",
    mode="test",
    carrier_trunk_id="trunk_a",
    agent_trunk_id="trunk_a",
)


def snapshot(*numbers: Number, trunks: tuple[Trunk, ...] = (CARRIER,)) -> Snapshot:
    held: dict[str, tuple[Number, ...]] = {}
    for number in numbers:
        held[number.e164] = (*held.get(number.e164, ()), number)
    return Snapshot(version=1, trunks={t.id: t for t in trunks}, numbers=held)


def invite(user: str = "+15555551234", source: str = "203.0.113.1", hint: str | None = None) -> Invite:
    return Invite(request_user=user, from_user="+13035559876", source_address=source, trunk_hint=hint)


def refused(routes: Snapshot, call: Invite, load: Load = IDLE) -> Reject:
    decision = decide(Table(routes), call, load)
    assert isinstance(decision, Reject)
    return decision


def dialled(routes: Snapshot, call: Invite, load: Load = IDLE) -> Dial:
    decision = decide(Table(routes), call, load)
    assert isinstance(decision, Dial)
    return decision


def uri(decision: Dial) -> str:
    return request_uri(decision.target, decision.called)


def test_an_allowed_source_reaches_the_numbers_trunk() -> None:
    decision = dialled(snapshot(NUMBER), invite())
    assert uri(decision) == "sip:+15555551234@sip.example.com;transport=tcp"
    assert next_hop_uri(decision.target) is None
    assert decision.caller == "+13035559876"
    assert decision.explanation.tried == (
        "dialled +15555551234: +15555551234 (as it came)",
        "number +15555551234: known",
        "source 203.0.113.1: allowed on trunk Carrier",
        "sent to trunk Carrier (sip.example.com:5060/tcp)",
    )


def test_ipv6_sources_and_servers() -> None:
    trunk = msgspec.structs.replace(CARRIER, server="2001:db8::7", transport="udp", next_hop="127.0.0.2:5060")
    decision = dialled(snapshot(NUMBER, trunks=(trunk,)), invite(source="2001:db8::1"))
    assert uri(decision) == "sip:+15555551234@[2001:db8::7]:5060"
    assert next_hop_uri(decision.target) == "sip:127.0.0.2:5060"


def test_a_source_just_outside_is_told_so() -> None:
    decision = refused(snapshot(NUMBER), invite(source="203.0.113.9"))
    assert decision.cause is Cause.SOURCE_NOT_ALLOWED
    assert decision.sip_answer == (403, "Forbidden")
    assert decision.explanation.nearest == "the source 203.0.113.9 lies just outside 203.0.113.0/29"
    assert decision.number is NUMBER
    assert decision.explanation.mend is not None
    assert "203.0.113.9" in decision.explanation.mend


def test_a_source_far_away_has_no_nearest_miss() -> None:
    assert refused(snapshot(NUMBER), invite(source="8.8.8.8")).explanation.nearest is None


def test_an_empty_list_admits_nobody_and_open_admits_all() -> None:
    closed = msgspec.structs.replace(CARRIER, allowed_addresses=())
    assert refused(snapshot(NUMBER, trunks=(closed,)), invite()).cause is Cause.SOURCE_NOT_ALLOWED
    opened = msgspec.structs.replace(closed, is_open=True)
    assert dialled(snapshot(NUMBER, trunks=(opened,)), invite(source="8.8.8.8"))


def test_an_unknown_number_is_404_for_a_known_source_and_names_a_near_one() -> None:
    decision = refused(snapshot(NUMBER), invite("+15555551239"))
    assert decision.cause is Cause.NUMBER_NOT_FOUND
    assert decision.sip_answer == (404, "Not Found")
    assert decision.carrier is CARRIER
    assert decision.explanation.nearest == "+15555551234 is imported, and differs in its last digit only"


def test_what_a_shared_carrier_dials_is_told_to_no_account_if_it_is_none_of_theirs() -> None:
    other = msgspec.structs.replace(CARRIER, id="trunk_b", account_id="acc_b")
    decision = refused(snapshot(NUMBER, trunks=(CARRIER, other)), invite("+15555551239"))
    assert decision.sip_answer == (404, "Not Found")
    assert (decision.carrier, decision.number, decision.explanation.nearest) == (None, None, None)
    assert "source 203.0.113.1: trunks of several accounts allow it" in decision.explanation.tried
    same = msgspec.structs.replace(CARRIER, id="trunk_b", mode="live")
    assert refused(snapshot(NUMBER, trunks=(CARRIER, same)), invite("+15555551239", hint="trunk_b")).carrier is same


def test_a_known_source_is_not_told_that_another_account_holds_the_number() -> None:
    other = msgspec.structs.replace(CARRIER, id="trunk_b", account_id="acc_b", allowed_addresses=("198.51.100.7",))
    theirs = msgspec.structs.replace(NUMBER, account_id="acc_b", carrier_trunk_id="trunk_b", agent_trunk_id="trunk_b")
    held, free = (refused(snapshot(*numbers, trunks=(CARRIER, other)), invite()) for numbers in ([theirs], []))
    assert held == free
    assert held.carrier is CARRIER


def test_a_stranger_can_not_probe_for_numbers() -> None:
    held = refused(snapshot(NUMBER), invite(source="8.8.8.8"))
    absent = refused(snapshot(NUMBER), invite("+15555551239", source="8.8.8.8"))
    assert held.sip_answer == absent.sip_answer == (403, "Forbidden")
    assert absent.carrier is None


def test_something_that_is_no_number() -> None:
    decision = refused(snapshot(NUMBER), invite("sales"))
    assert decision.cause is Cause.INVALID_NUMBER
    assert decision.called == "sales"


def test_a_disabled_number_says_why() -> None:
    number = msgspec.structs.replace(NUMBER, disabled_reason="its provisioning failed")
    decision = refused(snapshot(number), invite())
    assert decision.sip_answer == (480, "Temporarily Unavailable")
    assert "its provisioning failed" in decision.explanation.summary


@pytest.mark.parametrize("target", [None, "trunk_gone"])
def test_a_number_without_a_target_is_refused(target: str | None) -> None:
    number = msgspec.structs.replace(NUMBER, agent_trunk_id=target)
    assert refused(snapshot(number), invite()).cause is Cause.NO_ROUTE


def test_before_the_first_snapshot_every_call_is_503() -> None:
    assert refused(EMPTY, invite()).sip_answer == (503, "Service Unavailable")


def test_the_source_decides_between_accounts_that_hold_one_number() -> None:
    other = msgspec.structs.replace(CARRIER, id="trunk_b", account_id="acc_b", allowed_addresses=("198.51.100.7",))
    theirs = msgspec.structs.replace(
        NUMBER, id="phone_0", account_id="acc_b", carrier_trunk_id="trunk_b", agent_trunk_id="trunk_b"
    )
    routes = snapshot(NUMBER, theirs, trunks=(CARRIER, other))
    assert dialled(routes, invite(source="203.0.113.1")).number is NUMBER
    assert dialled(routes, invite(source="198.51.100.7")).number is theirs


def test_the_trunk_hint_chooses_among_admitted_numbers_and_gives_no_right() -> None:
    other = msgspec.structs.replace(CARRIER, id="trunk_b", account_id="acc_b")
    theirs = msgspec.structs.replace(
        NUMBER, id="phone_2", account_id="acc_b", carrier_trunk_id="trunk_b", agent_trunk_id="trunk_b"
    )
    routes = snapshot(NUMBER, theirs, trunks=(CARRIER, other))
    assert dialled(routes, invite()).number is NUMBER
    assert dialled(routes, invite(hint="trunk_b")).number is theirs
    assert refused(routes, invite(source="8.8.8.8", hint="trunk_b")).cause is Cause.SOURCE_NOT_ALLOWED


@pytest.mark.parametrize(
    ("user", "number"),
    [
        ("+15555551234", "+15555551234"),
        ("15555551234", "+15555551234"),
        ("0015555551234", "+15555551234"),
        ("%2B15555551234", "+15555551234"),
        ("+1-555-555-1234", "+15555551234"),
        ("+15555551234;npdi", "+15555551234"),
        ("0301234567", None),
        ("+0155555512", None),
        ("+12345", None),
        ("+1234567890123456", None),
        ("٣٣٣٣٣٣٣٣", None),
        ("", None),
        ("5555551234;phone-context=+1", "+15555551234"),
        ("02079460000;phone-context=+44", "+442079460000"),
        ("863-1234;phone-context=+1-914", "+19148631234"),
        ("15555551234;phone-context=example.com", "+15555551234"),
    ],
)
def test_readings(user: str, number: str | None) -> None:
    assert next((reading.e164 for reading in readings(user)), None) == number


@pytest.mark.parametrize(
    ("user", "how"),
    [
        ("+15555551234", "as it came"),
        ("+1-555-555-1234", "as it came, without its separators"),
        ("(555) 555-1234;phone-context=+1", "read in its phone-context +1, without its separators"),
        ("15555551234", "+ added"),
    ],
)
def test_how_a_number_was_read_is_said(user: str, how: str) -> None:
    assert readings(user)[0].how == how


@pytest.mark.parametrize(
    ("sent", "country", "caller", "said"),
    [
        ("+13035559876", None, "+13035559876", None),
        ("3035559876", "US", "+13035559876", "caller 3035559876: +13035559876 (a number of US, the trunk's country)"),
        ("13035559876", "US", "+13035559876", "caller 13035559876: +13035559876 (+ added)"),
        ("442079460000", "US", "+442079460000", "caller 442079460000: +442079460000 (+ added)"),
        (
            "030123456789",
            "DE",
            "+4930123456789",
            "caller 030123456789: +4930123456789 (a number of DE, the trunk's country)",
        ),
        ("anonymous", "US", "anonymous", "caller anonymous: no phone number"),
        ("", "US", "", "caller nobody: no phone number"),
    ],
)
def test_a_caller_is_read_as_its_carriers_country_has_it_and_that_is_said(
    sent: str, country: str | None, caller: str, said: str | None
) -> None:
    carrier = msgspec.structs.replace(CARRIER, country=country)
    call = msgspec.structs.replace(invite(), from_user=sent)
    decision = dialled(snapshot(NUMBER, trunks=(carrier,)), call)
    assert decision.caller == caller
    assert [line for line in decision.explanation.tried if line.startswith("caller")] == ([said] if said else [])


@given(st.text(max_size=64), st.text(max_size=64), st.ip_addresses(), st.text(max_size=20) | st.none())
def test_any_invite_gets_a_decision_and_strangers_never_get_through(
    user: str, caller: str, source: ipaddress.IPv4Address | ipaddress.IPv6Address, hint: str | None
) -> None:
    call = Invite(request_user=user, from_user=caller, source_address=str(source), trunk_hint=hint)
    decision = decide(Table(snapshot(NUMBER)), call)
    allowed = any(source in ipaddress.ip_network(n) for n in CARRIER.allowed_addresses)
    if isinstance(decision, Dial):
        assert allowed
    else:
        assert decision.explanation.mend
        assert decision.sip_answer[0] in {403, 404}


def test_a_snapshot_survives_its_wire_form() -> None:
    routes = snapshot(NUMBER)
    assert decode(encode(routes)) == routes


@pytest.mark.parametrize(
    ("policy", "offered", "is_refused"),
    [
        ({}, None, False),
        ({"media_encryption": "required"}, None, False),
        ({"media_encryption": "required"}, Offered(codecs=("PCMU",), encryption="none"), True),
        ({"media_encryption": "required", "provider": "openai"}, Offered(codecs=("PCMU",), encryption="none"), False),
        ({"media_encryption": "required"}, Offered(codecs=("PCMU",), encryption="optional"), False),
        ({"media_encryption": "disabled"}, Offered(codecs=("PCMU",), encryption="optional"), False),
        ({"media_encryption": "disabled"}, Offered(codecs=("PCMU",), encryption="strong"), True),
        ({}, Offered(codecs=("PCMU",), encryption="weak"), True),
        ({"codecs": ("pcma",)}, Offered(codecs=("PCMU", "PCMA"), encryption="none"), False),
        ({"codecs": ("opus",)}, Offered(codecs=("PCMU", "PCMA"), encryption="none"), True),
        ({"codecs": ("opus",), "provider": "openai"}, Offered(codecs=("PCMU",), encryption="none"), False),
        ({}, Offered(codecs=(), encryption="none", fault="no_audio"), True),
    ],
)
def test_media_by_the_carrier_trunks_policy(policy: dict[str, object], offered: Offered, is_refused: bool) -> None:
    call = msgspec.structs.replace(invite(), offered=offered)
    decision = decide(Table(snapshot(NUMBER, trunks=(msgspec.structs.replace(CARRIER, **policy),))), call)
    if is_refused:
        assert isinstance(decision, Reject)
        assert decision.cause is Cause.MEDIA_NOT_ACCEPTABLE
        assert decision.sip_answer == (488, "Not Acceptable Here")
    else:
        assert isinstance(decision, Dial)


AGENTS = Trunk(
    id="trunk_b",
    account_id="acc_a",
    mode="test",
    name="Agents",
    provider="elevenlabs",
    server="sip.example.org",
    port=5061,
    transport="tls",
    allowed_addresses=("198.51.100.7",),
)


def placed(user: str, caller: str = NUMBER.e164, country: str | None = "US") -> Dial | Reject:
    """Judge a call that the provider places."""
    carrier = msgspec.structs.replace(CARRIER, country=country)
    number = msgspec.structs.replace(NUMBER, agent_trunk_id=AGENTS.id)
    call = Invite(request_user=user, from_user=caller, source_address="198.51.100.7")
    return decide(Table(snapshot(number, trunks=(carrier, AGENTS))), call)


@pytest.mark.parametrize(
    ("sent", "country", "called", "how"),
    [
        ("+13035559876", "US", "+13035559876", "as it came"),
        ("3035559876", "US", "+13035559876", "a number of US, the trunk's country"),
        ("3035559876", None, "+3035559876", "+ added"),
        ("442079460000", "US", "+442079460000", "+ added"),
        ("00442079460000", "US", "+442079460000", "the international prefix 00 read as +"),
    ],
)
def test_a_number_that_is_called_out_is_read_as_its_carriers_country_has_it_and_that_is_said(
    sent: str, country: str | None, called: str, how: str
) -> None:
    decision = placed(sent, country=country)
    assert isinstance(decision, Dial)
    assert decision.called == called
    assert [x for x in decision.explanation.tried if x.startswith("dialled")] == [f"dialled {sent}: {called} ({how})"]


@pytest.mark.parametrize(("number", "country"), [("911", "US"), ("112", "DE"), ("999", None), ("911", None)])
def test_emergency_calls_are_not_taken_and_that_is_said(number: str, country: str | None) -> None:
    out = placed(number, country=country)
    into = refused(snapshot(NUMBER, trunks=(msgspec.structs.replace(CARRIER, country=country),)), invite(number))
    for decision in (out, into):
        assert isinstance(decision, Reject)
        assert decision.sip_answer == (404, "Not Found")
        assert f"{number} is an emergency number" in decision.explanation.summary


def test_what_a_provider_calls_that_is_no_number_is_refused_as_a_call_out() -> None:
    decision = placed("hello")
    assert isinstance(decision, Reject)
    assert (decision.cause, decision.is_outbound) == (Cause.INVALID_NUMBER, True)
    assert "Have the provider send" in (decision.explanation.mend or "")


@pytest.mark.parametrize("caller", ["+18005550000", "anonymous", ""])
def test_a_provider_that_calls_from_another_number_is_told_which_it_may_use(caller: str) -> None:
    decision = placed("+13035559876", caller)
    assert isinstance(decision, Reject)
    assert decision.sip_answer == (403, "Forbidden")
    assert "is no number of trunk Agents" in decision.explanation.summary
    assert AGENTS.id in (decision.explanation.mend or "")
