"""INVITEs that Kamailio refuses by itself, as they can't be read, passed on or taken: what is wrong with each. Pure.

Kamailio says which of its checks failed (routes/hygiene.cfg), and how the message begins. What is wrong in it is looked
for here, so that the explanation names it. Nothing that stands in it is believed, and nothing in it makes this fail.
"""

import re
from collections.abc import Callable, Mapping

import msgspec
from voxpria_routing.decision import Cause, Fault

from voxpria_edge.proxy import messages

MOST_BYTES = 16384
"""The longest message that Kamailio takes."""
_HIGHEST_CSEQ = 2**31
_LONGEST_SHOWN, _LONGEST_FIELD = 80, 1000
_COMPACT = {"v": "via", "f": "from", "t": "to", "i": "call-id", "l": "content-length"}
"""RFC 3261 section 7.3.3, as far as it is looked at here."""
_NEEDED = {"from": "From", "to": "To", "call-id": "Call-ID", "cseq": "CSeq"}
_TAG = re.compile(r";\s*tag\s*=\s*([^\s;,>]+)", re.IGNORECASE)
_BRANCH = re.compile(r";\s*branch\s*=\s*([^\s;,]+)", re.IGNORECASE)
_AT_THE_CARRIER = "That is a fault of the device or the software that sent it: show its maker this message."
_NO_ANSWER = "It got no answer."
_SEND_A_NUMBER = "Have the carrier send sip:, the number in E.164 form (+15551234567), @ and the edge's address."


class Message(msgspec.Struct, frozen=True):
    """How an INVITE begins, taken apart as far as that goes."""

    request_uri: str
    headers: Mapping[str, str]
    """The first of each name, in small letters and long form."""
    vias: int
    body_at: int | None
    """Where its body begins, in bytes; None where its headers are longer than what is known of it."""

    def first(self, name: str) -> str:
        """Return the value of a header, or nothing."""
        return self.headers.get(name, "")


def read(head: bytes) -> Message:
    """Take a message apart; whatever it is, it comes out as something."""
    end = head.find(b"\r\n\r\n")
    text = head[: end if end >= 0 else len(head)].decode(errors="backslashreplace")
    first, *lines = re.sub(r"\r?\n[ \t]+", " ", text).split("\n")
    _, _, rest = first.strip().partition(" ")
    uri = rest.strip().rpartition(" ")[0]
    headers: dict[str, str] = {}
    vias = 0
    for line in lines:
        name, _, value = line.partition(":")
        name = name.strip().lower()
        name = _COMPACT.get(name, name)
        vias += name == "via"
        headers.setdefault(name, value.strip())
    return Message(uri.strip(), headers, vias, end + 4 if end >= 0 else None)


def invite_of(broken: messages.Broken) -> messages.Invite:
    """Return the question that the message would have been."""
    message = read(messages.data(broken.head))
    sender, cseq = message.first("from"), message.first("cseq").partition(" ")[0]
    return messages.Invite(
        id=broken.id,
        at=broken.at,
        index=0,
        label=0,
        source=broken.source,
        port=broken.port,
        transport=broken.transport,
        call_id=_field(message.first("call-id")),
        from_tag=_field(_found(_TAG, sender)),
        request_uri=_field(message.request_uri),
        from_uri=_field(_uri(sender)),
        to_uri=_field(_uri(message.first("to"))),
        cseq=int(cseq) if re.fullmatch(r"[0-9]{1,10}", cseq) else 0,
    )


def is_no_call(broken: messages.Broken) -> bool:
    """Tell whether it says that it belongs to a call that is up: then no call was refused (RFC 3261 section 12.2)."""
    return broken.fault != "within" and bool(_found(_TAG, read(messages.data(broken.head)).first("to")))


def fault_of(broken: messages.Broken) -> Fault:
    """Return what is wrong with it."""
    look = FAULTS.get(broken.fault, _unreadable)
    return look(broken, read(messages.data(broken.head)))


def _too_many_hops(_: messages.Broken, message: Message) -> Fault:
    hops = message.first("max-forwards")
    if not re.fullmatch("0+", hops):
        return _malformed(f"Max-Forwards is {_shown(hops)}, and must be a number from 0 to 255.")
    passed = f"{message.vias} Via header{'s' if message.vias != 1 else ''}: as many hops came before"
    return Fault(
        cause=Cause.TOO_MANY_HOPS,
        summary="Max-Forwards is 0: the call went round in a circle, or through too many hops.",
        tried=(passed,),
        mend="Look where the number is forwarded to, for a circle; else have the carrier send Max-Forwards: 70.",
    )


def _loop(_: messages.Broken, message: Message) -> Fault:
    return Fault(
        cause=Cause.LOOP,
        summary="The edge itself sent this call: the server of the trunk that it went to is this edge.",
        tried=(f"Via: {_shown(message.first('via'))}",),
        mend="Set the trunk's config.server to the agent's server.",
    )


def _too_large(broken: messages.Broken, message: Message) -> Fault:
    body = None if message.body_at is None else broken.bytes - message.body_at
    return Fault(
        cause=Cause.MESSAGE_TOO_LARGE,
        summary=f"The message has {broken.bytes:,} bytes, at most {MOST_BYTES:,} are taken.",
        tried=(f"{body:,} bytes are its body" if body is not None else "most of it is headers",),
        mend="Have the carrier send fewer headers, codecs and parts of its body: an INVITE seldom needs 3,000 bytes.",
    )


def _other_scheme(_: messages.Broken, message: Message) -> Fault:
    return Fault(
        cause=Cause.SCHEME_NOT_SUPPORTED,
        summary=f"The request URI {_shown(message.request_uri)} is no SIP address.",
        mend=_SEND_A_NUMBER,
    )


def _bad_request_uri(_: messages.Broken, message: Message) -> Fault:
    return _malformed(f"The request URI {_shown(message.request_uri)} can't be read.", _SEND_A_NUMBER)


def _missing_headers(_: messages.Broken, message: Message) -> Fault:
    missing = [name for key, name in _NEEDED.items() if key not in message.headers]
    if not missing:
        return _malformed(f"From, To, Call-ID or CSeq is there, but can't be read. {_NO_ANSWER}")
    return _malformed(f"No INVITE may be without {' and '.join(missing)}, and this one is. {_NO_ANSWER}")


def _bad_cseq(_: messages.Broken, message: Message) -> Fault:
    cseq = _shown(message.first("cseq"))
    return _malformed(f"CSeq is {cseq}, and must be a number below {_HIGHEST_CSEQ:,} and the word INVITE.")


def _wrong_length(broken: messages.Broken, message: Message) -> Fault:
    said = _shown(message.first("content-length"))
    if message.body_at is None:
        return _malformed(f"Content-Length is {said}, and that is not how long the body is.")
    return _malformed(f"Content-Length is {said}, and the body has {broken.bytes - message.body_at:,} bytes.")


def _bad_expires(_: messages.Broken, message: Message) -> Fault:
    return _malformed(f"Expires is {_shown(message.first('expires'))}, and must be a number of seconds.")


def _unknown_extension(_: messages.Broken, message: Message) -> Fault:
    wanted = _shown(message.first("proxy-require"))
    return Fault(
        cause=Cause.EXTENSION_NOT_SUPPORTED,
        summary=f"Proxy-Require wants {wanted} of every proxy on the way, and the edge does not know that.",
        mend="Have the carrier leave Proxy-Require out.",
    )


def _bad_uris(_: messages.Broken, message: Message) -> Fault:
    shown = tuple(f"{name}: {_shown(message.first(name.lower()))}" for name in ("From", "To"))
    return _malformed("The address in From or in To can't be read.", tried=shown)


def _no_such_call(_: messages.Broken, message: Message) -> Fault:
    return Fault(
        cause=Cause.NO_SUCH_CALL,
        summary="To has a tag, as in a call that is up, and the edge has no such call.",
        tried=(f"To: {_shown(message.first('to'))}",),
        mend="Have the carrier begin a call with a To that has no tag (RFC 3261 section 8.1.1.2).",
    )


def _too_fast(_: messages.Broken, __: Message) -> Fault:
    return Fault(
        cause=Cause.CALLS_TOO_FAST,
        summary="More came from addresses that no trunk allows than is looked at in a second; the rest got no answer.",
        mend="If this is your carrier, add its address to the trunk's allowed_addresses: it is then no stranger.",
    )


def _scanner(_: messages.Broken, message: Message) -> Fault:
    return Fault(
        cause=Cause.SOURCE_NOT_ALLOWED,
        summary=f"User-Agent is {_shown(message.first('user-agent'))}, a tool that looks for open relays: no answer.",
        mend="If this is your carrier, add its address to the trunk's allowed_addresses: no name is looked at then.",
    )


def _unreadable(_: messages.Broken, message: Message) -> Fault:
    via = f"Via: {_shown(message.first('via'))}"
    return _malformed(f"The first line, or the topmost Via, can't be read. {_NO_ANSWER}", tried=(via,))


FAULTS: Mapping[str, Callable[[messages.Broken, Message], Fault]] = {
    "hops": _too_many_hops,
    "loop": _loop,
    "size": _too_large,
    "scheme": _other_scheme,
    "request_uri": _bad_request_uri,
    "headers": _missing_headers,
    "cseq": _bad_cseq,
    "length": _wrong_length,
    "expires": _bad_expires,
    "extension": _unknown_extension,
    "uris": _bad_uris,
    "within": _no_such_call,
    "too_fast": _too_fast,
    "scanner": _scanner,
}
"""How each is looked into, by Kamailio's word for it."""


def _malformed(summary: str, mend: str = _AT_THE_CARRIER, tried: tuple[str, ...] = ()) -> Fault:
    return Fault(cause=Cause.MALFORMED, summary=summary, tried=tried, mend=mend)


def _found(pattern: re.Pattern[str], value: str) -> str:
    found = pattern.search(value)
    return found[1] if found else ""


def _uri(value: str) -> str:
    """Return the URI in From or To, as far as there is one."""
    _, opens, rest = value.partition("<")
    return rest.partition(">")[0] if opens else value.partition(";")[0].strip()


def _field(value: str) -> str:
    return messages.base64_of(value[:_LONGEST_FIELD].encode())


def _shown(value: str) -> str:
    """Return what stands there for a person to see: short, and in quotes that show what can't be printed."""
    return repr(value if len(value) <= _LONGEST_SHOWN else value[:_LONGEST_SHOWN] + "…") if value else "missing"
