"""SIP messages off the wire: read within bounds, or refused; never an accident."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_sip.message import MAX_HEADERS, Headers, Request, Response, parse
from voxpria_sip.uri import Address, MalformedError, Uri, Via, split

pytestmark = pytest.mark.unit

INVITE = (
    b"INVITE sip:+15555551234@sip.test.voxpria.com;voxpria-trunk=trunk_1 SIP/2.0\r\n"
    b"v: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bKa, SIP/2.0/TCP [::1];branch=z9hG4bKb;rport\r\n"
    b'f: "A, B <x>" <sip:+13038921234@127.0.0.3>;tag=1\r\n'
    b"t: <sip:+15555551234@sip.test.voxpria.com>\r\n"
    b"i: abc@127.0.0.3\r\n"
    b"CSeq: 7   INVITE\r\n"
    b"Subject: one\r\n  two\r\n"
    b"l: 4\r\n"
    b"\r\n"
    b"v=0\r\ntrailing"
)


def test_compact_forms_folding_lists_and_length() -> None:
    message = parse(INVITE)
    assert isinstance(message, Request)
    assert (message.method, message.cseq, message.call_id) == ("INVITE", (7, "INVITE"), "abc@127.0.0.3")
    assert message.sender.tag == "1"
    assert message.sender.uri == "sip:+13038921234@127.0.0.3"
    assert message.headers.get("Subject") == "one two"
    assert [Via.parse(via).host for via in message.headers.all("Via")] == ["127.0.0.1", "[::1]"]
    assert message.via.params["branch"] == "z9hG4bKa"
    assert Uri.parse(message.uri).params == {"voxpria-trunk": "trunk_1"}
    assert message.body == b"v=0\r"


def test_what_is_written_is_read_again() -> None:
    message = parse(INVITE)
    again = parse(bytes(message))
    assert [*again.headers] == [*message.headers]
    assert again.body == message.body


def test_the_first_via_is_replaced_where_it_stands() -> None:
    message = parse(INVITE)
    message.headers.replace_first("Via", "SIP/2.0/UDP 127.0.0.9:1;branch=z9hG4bKc")
    assert next(iter(message.headers))[0] == "Via"
    assert message.headers.all("Via")[1].endswith("rport")
    assert message.via.host == "127.0.0.9"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"CSeq: 7   INVITE", b"CSeq: 7 BYE"),
        (b"CSeq: 7   INVITE", b"CSeq: 99999999999 INVITE"),
        (b"CSeq: 7   INVITE\r\n", b""),
        (b"i: abc", b"i: \r\nx: abc"),
        (b";tag=1", b""),
        (b"l: 4", b"l: 400"),
        (b"l: 4", b"l: -4"),
        (b"l: 4", b"l: 4, 4"),
        (b"SIP/2.0\r\n", b"SIP/3.0\r\n"),
        (b"Subject: one", b"Subject: o\0ne"),
        (b"Subject: one", b"Subject: o\nne"),
        (b"Subject: one", b"Subject: o\xffne"),
        (b"Subject: one", b"Subject one"),
        (b"127.0.0.1:5060", b"127.0.0.1:70000"),
        (b"Subject: one", b"\r\n".join([b"A: b"] * (MAX_HEADERS + 1))),
        (b"Subject: one", b"A: " + b"b" * 40000),
        (b"\r\n\r\n", b"\r\n"),
    ],
)
def test_refused(old: bytes, new: bytes) -> None:
    assert old in INVITE
    with pytest.raises(MalformedError):
        parse(INVITE.replace(old, new, 1))


def test_no_header_can_be_smuggled_in() -> None:
    with pytest.raises(MalformedError):
        Headers([("X-A", "b\r\nX-C: d")])
    with pytest.raises(MalformedError):
        Headers([("X-A: b\r\nX-C", "d")])


@given(st.binary(max_size=400))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        parse(data)
    except MalformedError:
        return
    pytest.fail("no random bytes are a whole SIP message")


@given(st.data())
def test_a_damaged_message_is_parsed_or_refused(data: st.DataObject) -> None:
    damaged = bytearray(INVITE)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    try:
        message = parse(bytes(damaged))
    except MalformedError:
        return
    assert parse(bytes(message)).call_id == message.call_id
    for name in ("Contact", "Record-Route", "Via"):
        message.headers.all(name)


_text = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=30).map(str.strip)


@given(st.lists(st.tuples(st.from_regex(r"X-[A-Za-z]{1,10}", fullmatch=True), _text), max_size=10), st.binary())
def test_every_response_that_is_written_is_read_again(extra: list[tuple[str, str]], body: bytes) -> None:
    required = [("Via", "SIP/2.0/UDP h;branch=b"), ("From", "<sip:a@b>;tag=1"), ("To", "<sip:c@d>"), ("CSeq", "1 BYE")]
    headers = Headers([*required, ("Call-ID", "x"), *extra])
    again = parse(bytes(Response(headers, status=200, reason="OK", body=body)))
    assert isinstance(again, Response)
    assert [field for field in again.headers if field[0].startswith("X-")] == extra
    assert again.body == body


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    for parser in (Address.parse, Uri.parse, Via.parse):
        try:
            parser(text)
        except MalformedError:
            continue


@given(
    st.from_regex(r"[A-Za-z0-9+._-]{1,20}", fullmatch=True),
    st.sampled_from(["127.0.0.1", "[::1]", "sip.test.voxpria.com"]),
    st.none() | st.integers(1, 65535),
    st.dictionaries(
        st.from_regex(r"[a-z-]{1,9}", fullmatch=True), st.none() | st.from_regex(r"[a-z0-9.]{1,9}", fullmatch=True)
    ),
)
def test_every_uri_that_is_written_is_read_again(
    user: str, host: str, port: int | None, params: dict[str, str | None]
) -> None:
    uri = Uri("sip", user, host, port, params)
    assert Uri.parse(str(uri)) == uri


def test_lists_are_split_outside_quotes_and_brackets() -> None:
    assert split(r'"a, \"b" <sip:x@y;a=1,2>;tag=3 , <sip:z>') == [r'"a, \"b" <sip:x@y;a=1,2>;tag=3', "<sip:z>"]
