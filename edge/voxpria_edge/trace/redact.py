"""A SIP message for people to read: everything that could open a door is taken out. Pure.

Out go the answers to digest challenges (RFC 8760), passwords in URIs, keys of encrypted media (RFC 4568, RFC 3830,
`k=`) and ICE, every header whose name speaks of a secret, the agent's own words, and bodies that are no SDP (a DTMF
digit may be part of a card's number). What stays has its Content-Length set right.
"""

import re

REMOVED = "[removed]"
_NO_KEY = "removed+" * 5
"""In the place of a key of SRTP: as long as one, or Wireshark takes the whole session description for malformed."""

_HEAD_END = re.compile(rb"\r?\n\r?\n")
_FOLD = re.compile(r"\r?\n[ \t]+")
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "authentication-info", "proxy-authentication-info"})
_SECRET_NAME = re.compile(r"token|secret|passw|api-?key|credential|first-message|cookie", re.I)
_KEPT = re.compile(r'\b(username|realm|algorithm|uri)\s*=\s*("[^"\\]*"|[A-Za-z0-9-]+)', re.I)
_URI_PASSWORD = re.compile(r"(sips?:[^\s@;>:]*):[^\s@;>]*@", re.I)
_LINES = (
    (re.compile(r"^(a=crypto:\s*\S+\s+\S+\s+).*$", re.M | re.I), rf"\1inline:{_NO_KEY}"),
    (re.compile(r"^(a=key-mgmt:).*$", re.M | re.I), rf"\1{REMOVED}"),
    (re.compile(r"^(k=).*$", re.M), rf"\1{REMOVED}"),
    (re.compile(r"^(a=ice-pwd:).*$", re.M | re.I), rf"\1{REMOVED}"),
)


def redact(message: bytes) -> str:
    """Return the message as text, with CRLF at line ends and without its secrets."""
    end = _HEAD_END.search(message)
    head = message[: end.start()] if end else message
    body = message[end.end() :] if end else b""
    lines = _FOLD.sub(" ", head.decode(errors="backslashreplace")).splitlines() or [""]
    headers = [_header(line) for line in lines[1:]]
    shown = _body(_value(headers, "content-type", "c"), body)
    length = str(len(shown.encode()))
    written = [f"{name}: {length if _is(name, 'content-length', 'l') else value}" for name, value in headers]
    return "\r\n".join([_URI_PASSWORD.sub(rf"\1:{REMOVED}@", lines[0]), *written, "", shown])


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    name, value = name.strip(), value.strip()
    if name.lower() in _CREDENTIALS:
        return name, _credentials(value)
    if _SECRET_NAME.search(name):
        return name, REMOVED
    return name, _URI_PASSWORD.sub(rf"\1:{REMOVED}@", value)


def _credentials(value: str) -> str:
    """Return what says who, of an answer to a challenge; nothing that says how it was proven."""
    scheme, _, rest = value.partition(" ")
    if scheme.lower() != "digest":
        return REMOVED
    return ", ".join([f"{scheme} {REMOVED}", *(f"{name}={said}" for name, said in _KEPT.findall(rest))])


def _body(kind: str, body: bytes) -> str:
    if not body:
        return ""
    if kind.partition(";")[0].strip().lower() != "application/sdp":
        return f"[{len(body)} bytes removed]"
    text = body.decode(errors="backslashreplace")
    text = re.sub(r"\r\n|\r|\n", "\r\n", text).replace("\r\n", "\n")
    for pattern, instead in _LINES:
        text = pattern.sub(instead, text)
    return text.replace("\n", "\r\n")


def _value(headers: list[tuple[str, str]], *names: str) -> str:
    return next((value for name, value in headers if _is(name, *names)), "")


def _is(name: str, *names: str) -> bool:
    return name.lower() in names
