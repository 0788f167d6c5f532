"""A trace as a capture file: libpcap's classic format, raw IP (LINKTYPE_RAW). Pure.

Times and addresses are those of the wire. Each message stands in one UDP datagram, whatever carried it: what came
over TCP or TLS was seen as messages, not as segments. Secrets are out already, so lengths differ from the wire's.
"""

import ipaddress
import struct
from collections.abc import Iterable, Iterator

from voxpria_routing.hosts import split
from voxpria_routing.trace import Message

_MAGIC, _LINKTYPE_RAW, _SNAPLEN = 0xA1B2C3D4, 101, 65535
_UDP = 17
_LONGEST_BYTES = 65_000

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def capture(messages: Iterable[Message]) -> bytes:
    """Return the capture file."""
    return b"".join(_records(messages))


def _records(messages: Iterable[Message]) -> Iterator[bytes]:
    yield struct.pack("<IHHiIII", _MAGIC, 2, 4, 0, 0, _SNAPLEN, _LINKTYPE_RAW)
    for message in messages:
        packet = _packet(message)
        micros = round(message.at.timestamp() * 1_000_000)
        yield struct.pack("<IIII", *divmod(micros, 1_000_000), len(packet), len(packet)) + packet


def _packet(message: Message) -> bytes:
    (source, source_port), (destination, destination_port) = _split(message.source), _split(message.destination)
    payload = message.text.encode()[:_LONGEST_BYTES]
    head = struct.pack(">HHH", source_port, destination_port, 8 + len(payload))
    pseudo = source.packed + destination.packed + struct.pack(">IHBB", 8 + len(payload), 0, 0, _UDP)
    checksum = _checksum(pseudo + head + b"\0\0" + payload) or 0xFFFF
    return _ip(source, destination, head + struct.pack(">H", checksum) + payload)


def _ip(source: IPAddress, destination: IPAddress, datagram: bytes) -> bytes:
    if source.version == 6 or destination.version == 6:
        head = struct.pack(">IHBB", 6 << 28, len(datagram), _UDP, 64)
        return head + _v6(source) + _v6(destination) + datagram
    head = struct.pack(">BBHHHBB", 0x45, 0, 20 + len(datagram), 0, 0, 64, _UDP)
    addresses = source.packed + destination.packed
    return head + struct.pack(">H", _checksum(head + b"\0\0" + addresses)) + addresses + datagram


def _v6(address: IPAddress) -> bytes:
    return address.packed if address.version == 6 else ipaddress.IPv6Address(f"::ffff:{address}").packed


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f">{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _split(address: str) -> tuple[IPAddress, int]:
    host, port = split(address)
    return ipaddress.ip_address(host), port
