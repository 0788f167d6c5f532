"""What is wrong with a broken INVITE, told without Kamailio; and wild input, which breaks nothing."""

import uuid
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kamailio_words import ALLOWED, BEGIN, NUMBER, ROUTES, STRANGER, TABLE, TRUNK, base64_of
from test_desk import office
from voxpria_edge.calls import beginnings
from voxpria_edge.desk import broken
from voxpria_edge.kit.lately import Lately
from voxpria_edge.proxy import messages
from voxpria_edge.trace.dropped import Dropped, is_dropped
from voxpria_edge.trace.hep import Mirrored
from voxpria_routing.decide import refuse
from voxpria_routing.decision import Cause, Reject
from voxpria_routing.edge_api import Sentence
from voxpria_routing.snapshot import Snapshot
from voxpria_routing.table import Table

pytestmark = pytest.mark.unit

HEAD = (
    f"INVITE sip:{NUMBER.e164}@edge SIP/2.0\r\nv: SIP/2.0/UDP 203.0.113.1;branch=z9hG4bK1\r\n"
    "Via: SIP/2.0/UDP 192.0.2.1\r\nf: <sip:+13038921234@carrier>;tag=a1\r\nt: <sip:x@edge>\r\ni: one@carrier\r\n"
    "CSeq: 7 INVITE\r\nMax-Forwards: 0\r\nContent-Length: 5\r\n\r\nv=0\r\n"
).encode()


def said(fault: str, head: bytes = HEAD, *, source: str = ALLOWED, **fields: object) -> messages.Broken:
    given_ = {
        "id": str(uuid.uuid4()),
        "at": f"{BEGIN:.6f}",
        "fault": fault,
        "bytes": len(head),
        "source": source,
        "port": 5060,
        "transport": "udp",
        "head": base64_of(head),
        "is_kept": 1,
    }
    return messages.Broken(**(given_ | fields))  # type: ignore[arg-type]


def refused(message: messages.Broken, table: Table = TABLE) -> Reject:
    return refuse(table, beginnings.question(broken.invite_of(message)), broken.fault_of(message))


def test_it_is_the_trunks_that_allows_its_address_and_names_its_number() -> None:
    decision = refused(said("hops"))
    assert (decision.carrier, decision.number, decision.called) == (TRUNK, NUMBER, NUMBER.e164)
    assert decision.sip_answer == (483, "Too Many Hops")
    assert "2 Via headers: as many hops came before" in decision.explanation.tried
    opened = beginnings.opened(broken.invite_of(said("hops")), decision, "edge_1")
    assert opened is not None
    call, _ = opened
    assert (call.sip_call_id, call.from_tag, call.cseq) == ("one@carrier", "a1", 7)


def test_it_is_nobodys_from_elsewhere_whatever_it_names() -> None:
    decision = refused(said("hops", source=STRANGER))
    assert decision.carrier is None
    assert decision.is_stranger


def test_an_address_of_several_accounts_makes_it_somebodys_only_by_a_number() -> None:
    other = msgspec.structs.replace(TRUNK, id="trunk_b", account_id="acct_b")
    table = Table(Snapshot(version=1, trunks={**ROUTES.trunks, other.id: other}, numbers=ROUTES.numbers))
    assert refused(said("hops"), table).carrier == TRUNK
    unknown = HEAD.replace(NUMBER.e164.encode(), b"+15550000000")
    assert refused(said("hops", unknown), table).carrier is None
    assert "trunks of several accounts allow it" in str(refused(said("hops", unknown), table).explanation.tried)


def test_a_call_that_an_agents_trunk_places_is_outbound() -> None:
    head = HEAD.replace(NUMBER.e164.encode(), b"+4930123456").replace(b"+13038921234", NUMBER.e164.encode())
    decision = refused(said("hops", head))
    assert (decision.is_outbound, decision.number) == (True, NUMBER)


@pytest.mark.parametrize(
    ("fault", "right", "wrong", "words"),
    [
        ("size", b"", b"", "The message has 17,012 bytes, at most 16,384 are taken."),
        ("length", b"", b"", "Content-Length is '5', and the body has"),
        ("headers", b"\r\nf: ", b"\r\nx: ", "No INVITE may be without From, and this one is."),
        ("headers", b"\r\nCSeq: ", b"\r\nx: ", "No INVITE may be without CSeq"),
        ("hops", b"Max-Forwards: 0", b"Max-Forwards: " + b"9" * 200, "9…', and must be a number"),
        ("hops", b"Max-Forwards: 0", b"Max-Forwards: \x00\x1b[2J", r"Max-Forwards is '\x00\x1b[2J'"),
        ("of a later version", b"", b"", "The first line, or the topmost Via, can't be read."),
    ],
)
def test_the_explanation_names_what_stands_there(fault: str, right: bytes, wrong: bytes, words: str) -> None:
    decision = refused(said(fault, HEAD.replace(right, wrong, 1) if right else HEAD, bytes=17012))
    assert words in decision.explanation.summary


def test_what_belongs_to_a_call_that_is_up_is_no_call() -> None:
    within = HEAD.replace(b"<sip:x@edge>", b"<sip:x@edge>;tag=b2")
    assert broken.is_no_call(said("size", within))
    assert not broken.is_no_call(said("within", within))
    assert not broken.is_no_call(said("size"))


async def test_what_a_trunks_own_address_sent_while_the_agent_was_dead_is_told_once(tmp_path: Path) -> None:
    kept, strangers = said("hops"), said("hops", source=STRANGER)
    async with office(tmp_path) as at:
        await at.desk.on_connected()
        for message in (kept, kept, strangers, messages.Resent()):
            await at.desk.on_message(message)
        at.desk.note_broken(msgspec.structs.replace(kept, id=str(uuid.uuid4())))
        await at.desk.settle()
        assert [kind for kind, _ in await at.told()] == ["Invited", "Ended"]
        assert [one.source for one in at.desk.strangers.take()] == [STRANGER]


WILD = st.one_of(
    st.binary(max_size=600),
    st.lists(
        st.sampled_from(
            [*HEAD.split(b"\r\n"), b"From:", b"<;tag=\x00", b"\xff\xfe", b"To: <sip:%00@x>", b" folded", b":"]
        )
    ).map(b"\r\n".join),
    st.tuples(st.integers(0, len(HEAD)), st.binary(max_size=20)).map(lambda at: HEAD[: at[0]] + at[1] + HEAD[at[0] :]),
)


@given(
    fault=st.one_of(st.sampled_from([*broken.FAULTS, "?"]), st.text(max_size=10)), head=WILD, size=st.integers(0, 2**31)
)
def test_wild_input_always_leaves_an_explanation_that_can_be_told(fault: str, head: bytes, size: int) -> None:
    message = said(fault, head, bytes=size)
    broken.is_no_call(message)
    decision = refused(message)
    opened = beginnings.opened(broken.invite_of(message), decision, "edge_1")
    assert opened is not None
    assert decision.cause in Cause
    assert decision.explanation.mend
    for event in opened[1]:
        text = msgspec.json.encode(event).decode()
        assert "\\u0000" not in text
        assert len(text) < 12_000
    msgspec.json.decode(msgspec.json.encode(decision.explanation.summary), type=Sentence)
    assert is_dropped(head) in (True, False)


def test_only_an_invite_without_a_header_is_dropped_without_a_word() -> None:
    assert not is_dropped(HEAD)
    assert not is_dropped(HEAD.replace(b"f: ", b"FROM : "))
    assert not is_dropped(HEAD.replace(b"INVITE", b"BYE").replace(b"f: ", b"x: "))
    for name in (b"f: ", b"t: ", b"i: ", b"CSeq: "):
        assert is_dropped(HEAD.replace(b"\r\n" + name, b"\r\nx: "))


def test_of_what_is_dropped_a_few_a_second_are_told() -> None:
    now, told = [5.0], list[messages.Broken]()
    dropped = Dropped(told.append, lambda: now[0])
    for _ in range(1000):
        dropped.take(Mirrored(BEGIN, (STRANGER, 5060), ("203.0.113.200", 5060), HEAD, "tcp"))
    now[0] = 6.5
    dropped.take(Mirrored(BEGIN, (STRANGER, 5060), ("203.0.113.200", 5060), HEAD, "tcp"))
    assert len(told) == 21
    assert told[0].transport == "tcp"
    assert messages.decode(msgspec.json.encode(told[0])) == told[0]


def test_what_came_lately_is_not_new_for_a_while() -> None:
    now = [0.0]
    lately = Lately(32, lambda: now[0])
    assert lately.is_new("a")
    assert not lately.is_new("a")
    for n in range(20_000):
        lately.is_new(str(n))
    assert lately.is_new("a")
    now[0] = 33.0
    assert lately.is_new("19999")
