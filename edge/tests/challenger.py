"""A trunk's server that challenges with digests which SIPp does not know (RFC 8760), and answers calls. UDP.

It takes a CANCEL or an ACK for what it belongs to by its Via branch alone (RFC 3261 section 17.2.3), as SIPp does not.
"""

import contextlib
import hashlib
import re
import socket
import threading
from collections.abc import Collection, Iterator, Sequence

HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
REALM, NONCE, USER, PASSWORD = "sip.example.com", "a-nonce", "user", "pass"
_SDP = "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
_ECHOED = ("via", "from", "call-id", "cseq", "record-route")


class Challenger:
    """What it got: the requests, oldest first."""

    def __init__(
        self, address: str, port: int, algorithms: Sequence[str], answer: str, methods: Collection[str]
    ) -> None:
        self._methods = methods
        self._last = (0, "")
        self.requests: list[str] = []
        self._final = answer
        self.may_answer = threading.Event()
        """While it is not set, a call is tried (100) and no more."""
        self.may_answer.set()
        self._algorithms = algorithms
        self._address = (address, port)
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(self._address)

    def serve(self) -> None:
        """Answer until the socket is closed."""
        with contextlib.suppress(OSError):
            while True:
                data, sender = self._socket.recvfrom(65535)
                if not data:
                    return
                self.requests.append(data.decode())
                if not self.may_answer.is_set():
                    self._socket.sendto(self._response(data.decode(), "100 Trying", [], "").encode(), sender)
                    self.may_answer.wait()
                for answer in self._answers(self.requests[-1]):
                    self._socket.sendto(answer.encode(), sender)

    def stop(self) -> None:
        """End `serve`."""
        self.may_answer.set()
        with socket.socket(type=socket.SOCK_DGRAM) as other:
            other.sendto(b"", self._address)

    def close(self) -> None:
        self._socket.close()

    def of(self, method: str) -> list[str]:
        """Return the requests of a method, none of them twice."""
        return list(dict.fromkeys(request for request in self.requests if request.startswith(f"{method} ")))

    def _answers(self, request: str) -> list[str]:
        method = request.partition(" ")[0]
        if method == "ACK":
            return []
        if method == "CANCEL":
            invite = next((invite for invite in self.of("INVITE") if branch(invite) == branch(request)), None)
            if invite is None:
                return [self._response(request, "481 Call/Transaction Does Not Exist", [], "")]
            return [
                self._response(request, "200 OK", [], ""),
                self._response(invite, "487 Request Terminated", [], ""),
            ]
        if not self._is_in_order(request):
            return [self._response(request, "500 Server Internal Error", [], "")]
        if method not in self._methods or self._is_authorized(request):
            final = self._final if method == "INVITE" else "200 OK"
            has_body = method == "INVITE" and final.startswith("200")
            return [self._response(request, final, [], _SDP.format(self._address[0]) if has_body else "")]
        asked = [
            f'WWW-Authenticate: Digest realm="{REALM}", nonce="{NONCE}", qop="auth", algorithm={algorithm}'
            for algorithm in self._algorithms
        ]
        return [self._response(request, "401 Unauthorized", asked, "")]

    def _is_in_order(self, request: str) -> bool:
        """RFC 3261 section 12.2.2: each request follows the one before, or is that one once more."""
        number = int(line_of(request, "CSeq").split()[1])
        is_next = number > self._last[0] or (number, branch(request)) == self._last
        self._last = max(self._last, (number, branch(request)))
        return is_next

    def _is_authorized(self, request: str) -> bool:
        sent = re.search(r"^Authorization: Digest (.*)\r$", request, re.M)
        if sent is None:
            return False
        fields = {name: quoted or bare for name, quoted, bare in re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]+))', sent[1])}
        hashed = HASHES[fields["algorithm"]]

        def h(text: str) -> str:
            return hashed(text.encode()).hexdigest()

        ha1, ha2 = h(f"{USER}:{REALM}:{PASSWORD}"), h(":".join(request.split()[:2]))
        return fields["response"] == h(f"{ha1}:{NONCE}:{fields['nc']}:{fields['cnonce']}:auth:{ha2}")

    def _response(self, request: str, status: str, more: Sequence[str], body: str) -> str:
        head = request.partition("\r\n\r\n")[0].split("\r\n")
        echoed = [line for line in head if line.partition(":")[0].lower() in _ECHOED]
        to = line_of(request, "To")
        to += "" if ";tag=" in to else f";tag=agent{status[:3]}"
        host, port = self._address
        lines = [f"SIP/2.0 {status}", *echoed, to, *more, f"Contact: <sip:agent@{host}:{port}>"]
        lines += ["Content-Type: application/sdp"] if body else []
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", body])


def line_of(message: str, name: str) -> str:
    """Return a header of a message, with its name."""
    return next(line for line in message.split("\r\n") if line.startswith(f"{name}:"))


def branch(request: str) -> str:
    """Return the branch of a request's topmost Via."""
    found = re.search(r"^Via:.*?branch=([^;,\s]+)", request, re.M)
    return found[1] if found else ""


@contextlib.contextmanager
def challenger(
    address: str,
    port: int,
    algorithms: Sequence[str],
    answer: str = "200 OK",
    methods: Collection[str] = frozenset(("INVITE",)),
) -> Iterator[Challenger]:
    """Run one until the way out; `answer` is what an INVITE with the right credentials gets.

    `methods` are those whose requests must bring credentials.
    """
    server = Challenger(address, port, algorithms, answer, methods)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(10)
        server.close()
