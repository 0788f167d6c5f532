"""The nearest misses: what a refused call almost met. Pure."""

from collections.abc import Sequence

from voxpria_routing.snapshot import Trunk
from voxpria_routing.table import IPAddress, IPNetwork, Table, networks_of


def nearest_network(addresses: Sequence[str], source: IPAddress) -> str | None:
    """Name the allowed network that shares the longest prefix with the source, if they share half of it."""
    networks = [n for n in networks_of(addresses) if n.version == source.version]
    if not networks:
        return None
    nearest = max(networks, key=lambda n: _shared_bits(n, source))
    if _shared_bits(nearest, source) < nearest.max_prefixlen // 2:
        return None
    return f"the source {source} lies just outside {nearest}"


def nearest_number(table: Table, carrier: Trunk, called: str) -> str | None:
    """Name a number of the carrier's account that differs from the dialled one in its last digit only."""
    for digit in "0123456789":
        for number in table.numbers.get(called[:-1] + digit, ()):
            if (number.account_id, number.mode) == (carrier.account_id, carrier.mode):
                return f"{number.e164} is imported, and differs in its last digit only"
    return None


def _shared_bits(network: IPNetwork, source: IPAddress) -> int:
    return network.max_prefixlen - (int(network.network_address) ^ int(source)).bit_length()
