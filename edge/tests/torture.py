"""Messages after RFC 4475 and worse: what each is, its bytes, and the answers that are right (None: silence)."""

from dataclasses import dataclass

_SDP = "v=0\r\no=t 1 1 IN IP4 127.0.0.8\r\ns=-\r\nc=IN IP4 127.0.0.8\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0\r\n"


@dataclass(frozen=True)
class Torture:
    name: str
    data: bytes
    answers: frozenset[int | None]


def _message(
    name: str,
    *answers: int | None,
    start: str = "INVITE sip:{number}@edge.example SIP/2.0",
    via: str = "Via: SIP/2.0/UDP 127.0.0.8:{port};branch=z9hG4bK{name};rport",
    sender: str = "From: <sip:torture@example.com>;tag={name}",
    to: str = "To: <sip:{number}@example.com>",
    call_id: str = "Call-ID: {name}@torture",
    cseq: str = "CSeq: 1 INVITE",
    hops: str = "Max-Forwards: 70",
    contact: str = "Contact: <sip:torture@127.0.0.8:{port}>",
    length: str = "Content-Length: {length}",
    extra: str = "",
    body: str = _SDP,
) -> tuple[str, list[str], str, frozenset[int | None]]:
    lines = [start, via, sender, to, call_id, cseq, hops, contact, "Content-Type: application/sdp", extra, length]
    return name, [line for line in lines if line], body, frozenset(answers)


_REFUSED = (400, 403, 404, 405, 416, 420, 480, 481, 483, 484, 488, 493, 500, 501, 505, 513, None)
_MESSAGES = [
    # RFC 4475 section 3.1.2: invalid messages
    _message("clerr", 400, None, length="Content-Length: 9999"),
    _message("ncl", 400, None, length="Content-Length: -999"),
    _message("badinv01", *_REFUSED, via="Via: SIP/2.0/UDP 127.0.0.8:{port};;,;,,"),
    _message("scalar02-cseq", 400, None, cseq="CSeq: 36893488147419103232 INVITE"),
    _message("scalar02-expires", *_REFUSED, extra="Expires: 1000000000000000000000000000000000000"),
    _message("quotbal", *_REFUSED, to='To: "Mr. J. User <sip:{number}@example.com>'),
    _message("ltgtruri", 400, 404, 416, None, start="INVITE <sip:{number}@edge.example> SIP/2.0"),
    _message("lwsruri", 400, 404, None, start="INVITE sip:{number}@edge.example; lr SIP/2.0"),
    _message("lwsstart", *_REFUSED, start="INVITE  sip:{number}@edge.example  SIP/2.0"),
    _message(
        "trws",
        200,
        400,
        404,
        403,
        480,
        503,
        None,
        start="OPTIONS sip:{number}@edge.example SIP/2.0  ",
        cseq="CSeq: 1 OPTIONS",
    ),
    _message("escruri", *_REFUSED, start="INVITE sip:{number}@edge.example?Route=%3Csip:other.example%3E SIP/2.0"),
    _message("baddate", *_REFUSED, extra="Date: Fri, 01 Jan 2010 16:00:00 EST"),
    _message("regbadct", 405, None, start="REGISTER sip:edge.example SIP/2.0", cseq="CSeq: 1 REGISTER"),
    _message("badaspec", *_REFUSED, contact="Contact: sip:user@example.com?Route=%3Csip:sip.example.com%3E"),
    _message("baddn", *_REFUSED, sender="From: Bell, Alexander <sip:a.g.bell@example.com>;tag=43"),
    _message("badvers", 505, 400, None, start="INVITE sip:{number}@edge.example SIP/7.0"),
    _message("mismatch01", 400, None, start="OPTIONS sip:{number}@edge.example SIP/2.0"),
    _message("mismatch02", 400, None, start="NEWMETHOD sip:{number}@edge.example SIP/2.0"),
    _message("bigcode", None, start="SIP/2.0 4294967301 better not break the receiver"),
    # section 3.3: application layer
    _message("unkscm", *_REFUSED, start="INVITE nobodyKnowsThisScheme:totallyopaque SIP/2.0"),
    _message("novelsc", *_REFUSED, start="INVITE soap.beep://192.0.2.103:3002 SIP/2.0"),
    _message("unksm2", 405, None, start="REGISTER sip:edge.example SIP/2.0", cseq="CSeq: 9 REGISTER"),
    _message("bext01", 420, *_REFUSED, extra="Require: nothingSupportsThis\r\nProxy-Require: noProxiesSupportThis"),
    _message("invut", *_REFUSED, body="<note>is no session description</note>"),
    _message("insuf", 400, None, call_id="", cseq=""),
    _message("multi01", *_REFUSED, extra="CSeq: 5 INVITE\r\nFrom: <sip:other@example.com>;tag=x\r\nMax-Forwards: 5"),
    _message("mcl01", *_REFUSED, extra="Content-Length: 5"),
    _message("bcast", None, start="SIP/2.0 200 OK", via="Via: SIP/2.0/UDP 192.0.2.198;branch=z9hG4bK1324923"),
    _message("zeromf", 483, start="INVITE sip:{number}@edge.example SIP/2.0", hops="Max-Forwards: 0"),
    _message("cparam01", 405, None, start="REGISTER sip:edge.example SIP/2.0", cseq="CSeq: 3 REGISTER"),
    _message("sdp01", *_REFUSED, extra="Accept: text/nobodyKnowsThis"),
    # ours
    _message("long-uri", *_REFUSED, start="INVITE sip:" + "9" * 4000 + "@edge.example SIP/2.0"),
    _message("long-header", *_REFUSED, extra="Subject: " + "x" * 12000),
    _message("many-headers", *_REFUSED, extra="\r\n".join(f"X-{i}: y" for i in range(1200))),
    _message("too-large", 513, None, extra="Subject: " + "x" * 20000),
    _message("quote-in-call-id", *_REFUSED, call_id='Call-ID: a"b\',"kind":"live"\\@torture'),
    _message("json-in-from", *_REFUSED, sender='From: "\\"},{\\"kind" <sip:x%22%7d@example.com>;tag="{{name}}"'),
    _message("shell-in-uri", *_REFUSED, start="INVITE sip:$(reboot)'`id`@edge.example SIP/2.0"),
    _message("nul-in-sdp", *_REFUSED, body=_SDP + "a=\x00\x00\r\n"),
    _message("sdp-of-crypto-only", *_REFUSED, body=_SDP + "a=crypto:1 NULL inline:\r\n" * 400),
    _message("route-to-elsewhere", *_REFUSED, extra="Route: <sip:198.51.100.1;lr>"),
    _message("in-dialog-of-nobody", 481, to="To: <sip:x@example.com>;tag=nobody"),
    _message(
        "bye-of-nobody",
        481,
        start="BYE sip:x@edge.example SIP/2.0",
        cseq="CSeq: 2 BYE",
        to="To: <sip:x@a.example>;tag=no",
    ),
    _message("refer-of-nobody", 405, 481, None, start="REFER sip:x@edge.example SIP/2.0", cseq="CSeq: 2 REFER"),
    _message("cancel-of-nobody", 481, None, start="CANCEL sip:x@edge.example SIP/2.0", cseq="CSeq: 2 CANCEL"),
]


def messages(number: str, port: int) -> list[Torture]:
    """Return all of them, from 127.0.0.8 and this port."""
    made: list[Torture] = []
    for name, lines, body, answers in _MESSAGES:
        text = "\r\n".join(lines).replace("{{name}}", name) + "\r\n\r\n" + body
        for key, value in {"number": number, "port": port, "name": name, "length": len(body)}.items():
            text = text.replace(f"{{{key}}}", str(value))
        made.append(Torture(name, text.encode(), answers))
    garbage = [b"\x00" * 500, b"\r\n\r\n", b"\xff" * 1400, b"INVITE", b"INVITE sip:x SIP/2.0\r\n" * 40, b"a" * 60000]
    return made + [Torture(f"garbage-{i}", data, frozenset({None, 400})) for i, data in enumerate(garbage)]
