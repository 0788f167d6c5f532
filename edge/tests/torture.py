"""The messages of RFC 4475, each in our own words, and worse: bytes, and the answers that are right (None: silence).

What is valid (section 3.1.1) must be understood: a call to a number that nobody has is 404, not 400.
"""

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


_HERE, _ANY = "127.0.0.8:{port}", "sip:torture@example.com"
_REST = "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n"


def _small(name: str, start: str, sender: str, to: str, via: str = "", extra: str = "") -> bytes:
    """A request without a body, in the usual order."""
    method = start.split(maxsplit=1)[0]
    via = via or f"Via: SIP/2.0/UDP {_HERE};rport;branch=z9hG4bK{name}"
    head = f"{start}\r\n{via}\r\nFrom: {sender}\r\nTo: {to}\r\nCall-ID: {name}.{_HERE}\r\nCSeq: 8 {method}\r\n"
    return f"{head}{extra}{_REST}".encode()


def _response(status: str, extra: str = "") -> bytes:
    """An answer to nothing that we asked."""
    via = f"Via: SIP/2.0/UDP {_HERE};branch=z9hG4bKnothing"
    said = _small("answer", f"SIP/2.0 {status}", f"<{_ANY}>;tag=a", f"<{_ANY}>;tag=b", via, extra)
    return said.replace(b"CSeq: 8 SIP/2.0", b"CSeq: 8 INVITE")


def _folded() -> bytes:
    """Folded lines, blanks wherever they may be, short and long names, odd letter case, unknown headers."""
    lines = [
        "INVITE sip:{number}@edge.example;unknownparam SIP/2.0",
        "TO :",
        " sip:{number}@edge.example",
        'from   : "J \\\\\\""       <sip:caller@example.com>',
        "  ;",
        "  tag = wsinv",
        "MaX-fOrWaRdS: 0068",
        f"Call-ID: wsinv.{_HERE}",
        "Content-Length   : {length}",
        "cseq: 0009",
        "  INVITE",
        "Via  : SIP  /   2.0",
        " /UDP",
        f"    {_HERE} ; rport ; branch = z9hG4bKwsinv",
        "s :",
        "NewFangledHeader:   a value",
        " that goes on",
        "UnknownHeaderWithUnusualValue: ;;,,;;,;",
        "Content-Type: application/sdp",
        'm:"Quoted string \\"\\"" <sip:caller@127.0.0.8:{port}> ; newparam =',
        "      newvalue ;",
        "  secondparam ; q = 0.33",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + _SDP).encode()


def _long() -> bytes:
    """Every part of a request much longer than usual."""
    word = "x" * 190
    head = _small(
        "longreq",
        f"INVITE sip:{word}{{number}}@edge.example;{word}={word} SIP/2.0",
        f'"{word * 2}" <sip:{word}@{"a" * 60}.example.com>;tag={word}',
        f'"{word}" <sip:{word}@{"b" * 60}.example.com;{word}={word}>;{word}="{word}"',
        f"Via: SIP/2.0/UDP {_HERE};rport;branch=z9hG4bK{word}\r\n"
        + "".join(f"Via: SIP/2.0/TCP host{n}.{'c' * 60}.example.com;branch=z9hG4bK{word}{n}\r\n" for n in range(12))[
            :-2
        ],
        f"Contact: <sip:{word}@127.0.0.8:{{port}};{word}={word}>\r\nUnknown-{word}: {word * 3}\r\n",
    )
    return head.replace(b"Content-Length: 0", b"Content-Length: {length}") + _SDP.encode()


_RAW = [
    # RFC 4475 section 3.1.1: valid messages
    ("wsinv", _folded().replace(b"0009\r\n  INVITE", b"0009 INVITE"), {404}),
    ("wsinv-cseq", _folded(), {None}),  # Kamailio reads no CSeq that is folded; nobody sends one
    (
        "intmeth",
        _small(
            "intmeth",
            "!odd-Method0123456789_*+`.%indeed'~ sip:1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*"
            ":&it+has=1,weird!*pas$wo~d_too.(doesn't-it)@example.com SIP/2.0",
            f"token1~` token2'+_ token3*%!.- <{_ANY}> ;fromParam''~+*_!.-%=\"\u0440\u0430\";tag=_token~1'+`*%!-.",
            f'"BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f" <{_ANY}>',
        ),
        {405},
    ),
    (
        "esc01",
        _small(
            "esc01",
            "INVITE sip:sips%3Auser%40example.com@example.net SIP/2.0",
            "<sip:I%20have%20spaces@example.net>;tag=esc01",
            "sip:%75se%72@example.com",
            extra="Contact: <sip:cal%6Cer@127.0.0.8:{port};%6C%72;n%61me=v%61lue%25%34%31>\r\n",
        ),
        {404},
    ),
    (
        "escnull",
        _small(
            "escnull", "REGISTER sip:example.com SIP/2.0", "sip:null-%00-null@example.com;tag=1", "sip:%00@example.com"
        ),
        {405},
    ),
    (
        "esc02",
        _small("esc02", "RE%47IST%45R sip:registrar.example.com SIP/2.0", f"<{_ANY}>;tag=%zz", f'"%Z%45" <{_ANY}>'),
        {405},
    ),
    (
        "lwsdisp",
        _small("lwsdisp", "OPTIONS sip:user@example.com SIP/2.0", f"caller<{_ANY}>;tag=323", "sip:user@example.com"),
        {200},
    ),
    ("longreq", _long(), {404}),
    (
        "dblreq",
        _small("dblreq", "REGISTER sip:example.com SIP/2.0", f"<{_ANY}>;tag=1", f"<{_ANY}>")
        + _small("dblreq-second", "INVITE sip:{number}@edge.example SIP/2.0", f"<{_ANY}>;tag=2", f"<{_ANY}>"),
        {405},
    ),
    (
        "semiuri",
        _small("semiuri", "OPTIONS sip:user;par=u%40example.net@example.com SIP/2.0", f"<{_ANY}>;tag=s", f"<{_ANY}>"),
        {200},
    ),
    (
        "transports",
        _small(
            "transports",
            "OPTIONS sip:user@example.com SIP/2.0",
            f"<{_ANY}>;tag=t",
            f"<{_ANY}>",
            f"Via: SIP/2.0/UDP {_HERE};rport;branch=z9hG4bKtransports\r\n"
            + "\r\n".join(
                f"Via: SIP/2.0/{name} t.example.com;branch=z9hG4bK{name}" for name in ("SCTP", "TLS", "UNKNOWN", "TCP")
            ),
        ),
        {200},
    ),
    (
        "mpart01",
        _small(
            "mpart01",
            "MESSAGE sip:user@example.com SIP/2.0",
            f"<{_ANY}>;tag=m",
            f"<{_ANY}>",
            extra='Content-Type: multipart/mixed;boundary="7a9"\r\n',
        ).replace(b"Content-Length: 0", b"Content-Length: 83")
        + b"--7a9\r\nContent-Type: text/plain\r\n\r\nHello\r\n"
        + b"--7a9\r\nContent-Type: a/b\r\n\r\n\x00\x01\xff\xfe\r\n--7a9--",
        {405},
    ),
    ("unreason", _response("200 = 2**3 * 5**2 \u043d\u043e \u0441\u0442\u043e"), {None}),
    ("noreason", _response("100 "), {None}),
    # section 3.1.2: invalid ones
    (
        "scalarlg",
        _response(
            "503 Service Unavailable", 'Retry-After: 949302838503028349304023988\r\nWarning: 1812 o "x"\r\n'
        ).replace(b"CSeq: 8", b"CSeq: 9292394834772304023312"),
        {None},
    ),
    # section 3.2: transaction layer
    (
        "badbranch",
        _small(
            "badbranch",
            "OPTIONS sip:user@example.com SIP/2.0",
            f"<{_ANY}>;tag=33242",
            f"<{_ANY}>",
            f"Via: SIP/2.0/UDP {_HERE};rport;branch=z9hG4bK",
        ),
        {200, 400},
    ),
    # section 3.3: application layer
    (
        "regaut01",
        _small(
            "regaut01",
            "REGISTER sip:example.com SIP/2.0",
            f"<{_ANY}>;tag=r",
            f"<{_ANY}>",
            extra="Authorization: NoOneKnowsThisScheme opaque-data=here\r\n",
        ),
        {405},
    ),
    (
        "cparam02",
        _small(
            "cparam02",
            "REGISTER sip:example.com SIP/2.0",
            f"<{_ANY}>;tag=c",
            f"<{_ANY}>",
            extra="Contact: <sip:+1;unknown=x@127.0.0.8:{port}>\r\n",
        ),
        {405},
    ),
    (
        "regescrt",
        _small(
            "regescrt",
            "REGISTER sip:example.com SIP/2.0",
            f"<{_ANY}>;tag=e",
            f"<{_ANY}>",
            extra="Contact: <sip:user@example.com?Route=%3Csip:sip.example.com%3E>\r\n",
        ),
        {405},
    ),
    # section 3.4: as in RFC 2543, without branch, tag and Max-Forwards
    (
        "inv2543",
        (
            "INVITE sip:{number}@edge.example SIP/2.0\r\n"
            f"Via: SIP/2.0/UDP {_HERE}\r\nFrom: <sip:caller@127.0.0.8>\r\nTo: sip:{{number}}@edge.example\r\n"
            f"Call-ID: inv2543.{_HERE}\r\nCSeq: 56 INVITE\r\nContent-Type: application/sdp\r\n\r\n" + _SDP
        ).encode(),
        {404, 400},
    ),
]


def messages(number: str, port: int) -> list[Torture]:
    """Return all of them, from 127.0.0.8 and this port."""
    made: list[Torture] = []
    for name, lines, body, answers in _MESSAGES:
        text = "\r\n".join(lines).replace("{{name}}", name) + "\r\n\r\n" + body
        for key, value in {"number": number, "port": port, "name": name, "length": len(body)}.items():
            text = text.replace(f"{{{key}}}", str(value))
        made.append(Torture(name, text.encode(), answers))
    for name, data, answers in _RAW:
        values = {"number": number, "port": str(port), "length": str(len(_SDP))}
        for key, value in values.items():
            data = data.replace(f"{{{key}}}".encode(), value.encode())  # noqa: PLW2901
        made.append(Torture(name, data, frozenset(answers)))
    garbage = [b"\x00" * 500, b"\r\n\r\n", b"\xff" * 1400, b"INVITE", b"INVITE sip:x SIP/2.0\r\n" * 40, b"a" * 60000]
    return made + [Torture(f"garbage-{i}", data, frozenset({None, 400})) for i, data in enumerate(garbage)]
