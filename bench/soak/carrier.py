"""A carrier that behaves oddly: what it sends is right as far as it goes, and then it does not go on as it should."""

import random
import re
import socket
import time
from collections.abc import Callable

_OFFER = "v=0\r\no=- 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0 8\r\n"
_ANSWER_SECONDS = 12.0


class OddCarrier:
    """Calls from one address, over UDP unless a way of ending says otherwise."""

    def __init__(self, address: str, sip_port: int, tls_port: int) -> None:
        self._address, self._to, self._tls = address, ("127.0.0.1", sip_port), ("127.0.0.1", tls_port)

    @property
    def ways(self) -> list[Callable[[str], None]]:
        """All the ways in which its calls end."""
        return [
            self.never_acknowledge,
            self.acknowledge_and_vanish,
            self.hang_up_before_the_ack,
            self.cancel_at_some_time,
            self.call_and_vanish,
            self.call_nobody,
            self.show_a_wrong_password,
            self.send_too_much,
            self.send_in_pieces,
            self.send_garbage,
        ]

    def never_acknowledge(self, number: str) -> None:
        """Take the answer, and say nothing."""
        self._begin(number)

    def acknowledge_and_vanish(self, number: str) -> None:
        """Send neither media nor a BYE."""
        with _Call(self._address, self._to, number) as call:
            if call.is_answered():
                call.send("ACK", within=True)

    def hang_up_before_the_ack(self, number: str) -> None:
        """Let the BYE overtake the ACK."""
        with _Call(self._address, self._to, number) as call:
            if call.is_answered():
                call.send("BYE", within=True)
                call.send("ACK", within=True)

    def cancel_at_some_time(self, number: str) -> None:
        """Give up: before any answer, while it rings, or as it is answered, and acknowledge what comes."""
        with _Call(self._address, self._to, number) as call:
            call.send("INVITE")
            time.sleep(random.choice((0.0, 0.002, 0.01, 0.05, random.uniform(0, 1.5))))  # noqa: S311
            call.send("CANCEL")
            call.is_answered(is_sent=True)
            call.send("ACK", within=call.code // 100 == 2)
            if call.code // 100 == 2:
                call.send("BYE", within=True)

    def call_and_vanish(self, number: str) -> None:
        """Send an INVITE once, and be gone."""
        with _Call(self._address, self._to, number) as call:
            call.send("INVITE")

    def call_nobody(self, _number: str) -> None:
        """Call a number that nobody has."""
        self._begin("+15550009999")

    def show_a_wrong_password(self, number: str) -> None:
        """Answer no challenge, with credentials of one's own."""
        header = 'Authorization: Digest username="x", realm="VoxPria", nonce="x", uri="sip:x", response="0"\r\n'
        with _Call(self._address, self._to, number) as call:
            call.send("INVITE", more=header)
            call.is_answered(is_sent=True)
            call.send("ACK", within=call.code // 100 == 2)

    def send_too_much(self, number: str) -> None:
        """Send more than any message may have."""
        with _Call(self._address, self._to, number) as call:
            call.send("INVITE", more="X-Much: " + "x" * 20_000 + "\r\n")
            call.is_answered(is_sent=True)

    def send_in_pieces(self, number: str) -> None:
        """Send an INVITE over TCP in pieces, and close the connection at some time."""
        with _Call(self._address, self._to, number) as call:
            data = call.request("INVITE").replace(b"SIP/2.0/UDP", b"SIP/2.0/TCP")
            with socket.create_connection(self._to, 5, source_address=(self._address, 0)) as connection:
                for start in range(0, random.choice((len(data) // 2, len(data))), 97):  # noqa: S311
                    connection.sendall(data[start : start + 97])
                    time.sleep(0.005)
                time.sleep(random.uniform(0, 1))  # noqa: S311

    def send_garbage(self, _number: str) -> None:
        """Speak no TLS where TLS is spoken."""
        with socket.create_connection(self._tls, 5, source_address=(self._address, 0)) as connection:
            connection.sendall(b"\x16\x03\x01" + random.randbytes(300))  # noqa: S311

    def _begin(self, number: str) -> None:
        with _Call(self._address, self._to, number) as call:
            call.is_answered()


class _Call:
    """One call, as far as it is led."""

    def __init__(self, address: str, to: tuple[str, int], number: str) -> None:
        self._to, self._number, self._id = to, number, f"soak-{time.monotonic_ns()}-{random.randrange(1 << 30)}"  # noqa: S311
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self._host = "{}:{}".format(*self._socket.getsockname())
        self._answer = ""
        self.code = 0

    def __enter__(self) -> "_Call":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, method: str, more: str = "", *, within: bool = False) -> bytes:
        """Return a request; `within` the call that the answer has opened."""
        to, uri, route = f"<sip:{self._number}@{self._to[0]}>", f"sip:{self._number}@{self._to[0]}:{self._to[1]}", ""
        if within or method == "ACK":
            to = _header(self._answer, "To") or to
        if within:
            uri = (re.search(r"<([^>]+)>", _header(self._answer, "Contact")) or ["", uri])[1]
            routes = re.findall(r"^Record-Route: (.*?)\r?$", self._answer, re.M)
            route = "".join(f"Route: {each}\r\n" for each in reversed(routes))
        number = 2 if method == "BYE" else 1
        branch = f"z9hG4bK{self._id}" + (method if within else "")
        body = _OFFER.format(self._host.partition(":")[0]) if method == "INVITE" else ""
        return (
            f"{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP {self._host};branch={branch}\r\n{route}{more}"
            f"From: <sip:+13038921234@{self._host}>;tag=soak\r\nTo: {to}\r\nCall-ID: {self._id}\r\n"
            f"CSeq: {number} {method}\r\nContact: <sip:carrier@{self._host}>\r\nMax-Forwards: 70\r\n"
            f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def send(self, method: str, more: str = "", *, within: bool = False) -> None:
        self._socket.sendto(self.request(method, more, within=within), self._to)

    def is_answered(self, *, is_sent: bool = False) -> bool:
        """Call, unless that is sent, and wait for the final answer; tell whether it is a 2xx."""
        if not is_sent:
            self.send("INVITE")
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self.code < 200 and time.monotonic() < deadline:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                answer = self._socket.recv(65536).decode(errors="replace")
            except OSError:
                return False
            if _header(answer, "CSeq").endswith("INVITE"):
                self._answer, self.code = answer, int(answer.split(" ", 2)[1])
        return self.code // 100 == 2


def _header(message: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*?)\r?$", message, re.M)
    return found[1] if found else ""
