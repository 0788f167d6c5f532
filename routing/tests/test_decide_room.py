"""Calls out through a carrier, trunks that stand in for others, and limits: what a decision makes of them."""

import msgspec
import pytest
from voxpria_routing.decide import connect, decide, place
from voxpria_routing.decision import Cause, Dial, Invite, Reject
from voxpria_routing.load import Load, account_key, server_key
from voxpria_routing.snapshot import Limits, Number, Snapshot, Trunk
from voxpria_routing.table import Table

pytestmark = pytest.mark.unit

CARRIER = Trunk(
    id="trunk_carrier",
    account_id="acc",
    mode="test",
    name="Carrier",
    provider="generic",
    server="sip.carrier.example",
    port=5060,
    transport="udp",
    allowed_addresses=("203.0.113.1",),
)
AGENT = msgspec.structs.replace(
    CARRIER, id="trunk_agent", name="Agent", provider="elevenlabs", allowed_addresses=("198.51.100.1",)
)
STAND_IN = msgspec.structs.replace(AGENT, id="trunk_other", name="Other", server="sip.other.example")
NO_LIMITS = Limits()
NUMBER = Number(
    id="phone_1",
    e164="+15555551234",
    account_id="acc",
    mode="test",
    carrier_trunk_id=CARRIER.id,
    agent_trunk_id=AGENT.id,
)
FROM_CARRIER = Invite(request_user=NUMBER.e164, from_user="+13035559876", source_address="203.0.113.1")
FROM_AGENT = Invite(request_user="+13035559876", from_user=NUMBER.e164, source_address="198.51.100.1")


def table(*trunks: Trunk, number: Number = NUMBER, limits: Limits = NO_LIMITS) -> Table:
    known = {trunk.id: trunk for trunk in (CARRIER, AGENT, STAND_IN, *trunks)}
    return Table(Snapshot(version=1, trunks=known, numbers={number.e164: (number,)}, default_limits=limits))


def test_an_agents_trunk_calls_out_through_the_numbers_carrier() -> None:
    decision = decide(table(), FROM_AGENT)
    assert isinstance(decision, Dial)
    assert decision.is_outbound
    assert (decision.target.id, decision.called, decision.caller) == (CARRIER.id, "+13035559876", NUMBER.e164)
    assert decision.carrier.id == AGENT.id


def test_only_from_a_number_of_its_own_and_only_where_there_is_a_carrier() -> None:
    foreign = msgspec.structs.replace(FROM_AGENT, from_user="+15550001111")
    decision = decide(table(), foreign)
    assert isinstance(decision, Reject)
    assert decision.sip_answer[0] == 403
    alone = msgspec.structs.replace(NUMBER, carrier_trunk_id=AGENT.id)
    decision = decide(table(number=alone), FROM_AGENT)
    assert isinstance(decision, Reject)
    assert (decision.cause, decision.sip_answer[0]) == (Cause.CALLER_NOT_ALLOWED, 403)
    # a carrier that gives itself our number as caller gets no call out
    forged = msgspec.structs.replace(FROM_AGENT, source_address="203.0.113.1")
    assert isinstance(decide(table(), forged), Reject)


def test_a_call_that_the_api_asks_for_goes_out_through_the_numbers_carrier() -> None:
    decision = place(table(), NUMBER.id, NUMBER.e164, "+13035559876")
    assert isinstance(decision, Dial)
    assert decision.is_outbound
    assert (decision.target.id, decision.carrier.id) == (CARRIER.id, AGENT.id)
    assert (decision.caller, decision.called) == (NUMBER.e164, "+13035559876")
    agent = connect(table(), NUMBER, "+13035559876")
    assert isinstance(agent, Dial)
    assert not agent.is_outbound
    assert (agent.target.id, agent.called, agent.caller) == (AGENT.id, NUMBER.e164, "+13035559876")


@pytest.mark.parametrize(
    ("number", "id_", "cause"),
    [
        (NUMBER, "phone_2", Cause.NO_ROUTE),
        (msgspec.structs.replace(NUMBER, agent_trunk_id=None), NUMBER.id, Cause.NO_ROUTE),
        (msgspec.structs.replace(NUMBER, carrier_trunk_id=AGENT.id), NUMBER.id, Cause.CALLER_NOT_ALLOWED),
        (msgspec.structs.replace(NUMBER, disabled_reason="it is off"), NUMBER.id, Cause.NUMBER_INACTIVE),
    ],
)
def test_what_the_api_asks_for_is_judged_like_any_call(number: Number, id_: str, cause: Cause) -> None:
    decision = place(table(number=number), id_, NUMBER.e164, "+13035559876")
    assert isinstance(decision, Reject)
    assert (decision.cause, decision.is_outbound) == (cause, True)
    assert decision.explanation.mend


def test_a_call_that_is_placed_needs_room_on_both_trunks_and_the_account() -> None:
    for key in (CARRIER.id, AGENT.id, account_key("acc", "test")):
        full = table(
            msgspec.structs.replace(CARRIER, max_concurrent_calls=1),
            msgspec.structs.replace(AGENT, max_concurrent_calls=1),
            limits=Limits(max_concurrent_calls=1),
        )
        decision = place(full, NUMBER.id, NUMBER.e164, "+13035559876", Load(open_calls={key: 1}))
        assert isinstance(decision, Reject)
        assert decision.cause is Cause.TOO_MANY_CALLS


def test_a_call_that_is_placed_has_its_place_on_the_agents_trunk_but_on_none_that_stands_in() -> None:
    agent = msgspec.structs.replace(
        AGENT, max_concurrent_calls=1, max_calls_per_second=1, failover_trunk_ids=("trunk_other",)
    )
    stand_in = msgspec.structs.replace(STAND_IN, max_concurrent_calls=1)
    itself = Load(open_calls={agent.id: 1, CARRIER.id: 1}, starts={agent.id: [0.0]})
    decision = connect(table(agent, stand_in), NUMBER, "+13035559876", itself)
    assert isinstance(decision, Dial)
    assert [target.id for target in decision.targets] == [agent.id, stand_in.id]
    crowded = connect(table(agent, stand_in), NUMBER, "+13035559876", Load(open_calls={stand_in.id: 1}))
    assert isinstance(crowded, Dial)
    assert [target.id for target in crowded.targets] == [agent.id]


def test_stand_ins_follow_in_order_and_those_of_others_never() -> None:
    foreign = msgspec.structs.replace(STAND_IN, id="trunk_foreign", account_id="acc_b")
    first = msgspec.structs.replace(AGENT, failover_trunk_ids=("trunk_foreign", "trunk_other", "trunk_gone"))
    decision = decide(table(first, foreign), FROM_CARRIER)
    assert isinstance(decision, Dial)
    assert [target.id for target in decision.targets] == [AGENT.id, STAND_IN.id]


def test_a_server_that_is_down_is_passed_over_and_that_is_said() -> None:
    first = msgspec.structs.replace(AGENT, failover_trunk_ids=(STAND_IN.id,))
    down = {server_key(first): "its server failed 5 calls in a row, last with no answer"}
    decision = decide(table(first), FROM_CARRIER, Load(down=down))
    assert isinstance(decision, Dial)
    assert decision.target.id == STAND_IN.id
    assert any("passed over" in line and "5 calls in a row" in line for line in decision.explanation.tried)


def test_a_server_that_is_down_is_the_last_resort_behind_all_others() -> None:
    first = msgspec.structs.replace(AGENT, failover_trunk_ids=(STAND_IN.id,))
    down = {server_key(first): "it sent no answer"}
    decision = decide(table(first), FROM_CARRIER, Load(down=down))
    assert isinstance(decision, Dial)
    assert [target.id for target in decision.targets] == [STAND_IN.id, AGENT.id]
    assert "last resort" not in decision.explanation.summary
    down[server_key(STAND_IN)] = "it is down"
    decision = decide(table(first), FROM_CARRIER, Load(down=down))
    assert isinstance(decision, Dial)
    assert [target.id for target in decision.targets] == [AGENT.id, STAND_IN.id]
    assert "as a last resort: it sent no answer" in decision.explanation.summary
    assert decision.explanation.tried[-2].startswith("sent to trunk Agent")
    assert decision.explanation.tried[-1].startswith("then to trunk Other")
    assert all("as a last resort" in line for line in decision.explanation.tried[-2:])
    assert AGENT.id in str(decision.explanation.mend)


def test_a_server_that_is_down_is_not_tried_by_more_calls_than_may() -> None:
    first = msgspec.structs.replace(AGENT, failover_trunk_ids=(STAND_IN.id,))
    down = {server_key(first): "it sent no answer"}
    decision = decide(table(first), FROM_CARRIER, Load(down=down, tried_enough=set(down)))
    assert isinstance(decision, Dial)
    assert [target.id for target in decision.targets] == [STAND_IN.id]
    decision = decide(table(), FROM_CARRIER, Load(down=down, tried_enough=set(down)))
    assert isinstance(decision, Reject)
    assert (decision.cause, decision.sip_answer[0], decision.retry_after_seconds) == (Cause.TARGETS_DOWN, 503, None)
    assert "it sent no answer; as many calls as may are trying it" in decision.explanation.summary


def test_a_full_or_barred_trunk_is_no_last_resort() -> None:
    down = {server_key(AGENT): "it sent no answer"}
    full = msgspec.structs.replace(AGENT, max_concurrent_calls=2)
    decision = decide(table(full), FROM_CARRIER, Load(open_calls={AGENT.id: 2}, down=down))
    assert isinstance(decision, Reject)
    assert decision.cause is Cause.TOO_MANY_CALLS
    barred = msgspec.structs.replace(AGENT, barred_reason="its server is private")
    assert isinstance(decide(table(barred), FROM_CARRIER, Load(down=down)), Reject)


def test_a_full_trunk_is_passed_over_for_its_stand_in_and_is_486_without_one() -> None:
    full = msgspec.structs.replace(AGENT, max_concurrent_calls=2)
    load = Load(open_calls={AGENT.id: 2})
    decision = decide(table(full), FROM_CARRIER, load)
    assert isinstance(decision, Reject)
    assert (decision.cause, decision.sip_answer[0]) == (Cause.TOO_MANY_CALLS, 486)
    spare = msgspec.structs.replace(full, failover_trunk_ids=(STAND_IN.id,))
    decision = decide(table(spare), FROM_CARRIER, load)
    assert isinstance(decision, Dial)
    assert decision.target.id == STAND_IN.id


def test_an_accounts_limits_hold_for_all_its_trunks() -> None:
    limits = Limits(max_concurrent_calls=1, max_calls_per_second=1)
    key = account_key("acc", "test")
    decision = decide(table(limits=limits), FROM_CARRIER, Load(open_calls={key: 1}))
    assert isinstance(decision, Reject)
    assert decision.sip_answer[0] == 486
    decision = decide(table(limits=limits), FROM_AGENT, Load(now_seconds=10.4, starts={key: [10.0]}))
    assert isinstance(decision, Reject)
    assert (decision.sip_answer[0], decision.retry_after_seconds) == (503, 1)
    assert isinstance(decide(table(limits=limits), FROM_AGENT, Load(now_seconds=11.1, starts={key: [10.0]})), Dial)


def test_a_registration_is_called_by_its_contact_and_to_says_the_number() -> None:
    invite = msgspec.structs.replace(FROM_CARRIER, request_user="our-registration", to_user=NUMBER.e164)
    decision = decide(table(), invite)
    assert isinstance(decision, Dial)
    assert any("from To" in line for line in decision.explanation.tried)
