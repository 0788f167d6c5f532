"""The routes as a decision looks things up in them: a snapshot, its deltas, and an index for each question."""

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import TypeVar

from voxpria_routing.load import account_key
from voxpria_routing.snapshot import EMPTY, Delta, Limits, Mode, Number, Snapshot, Trunk

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

Key = TypeVar("Key")
_CARRIER, _AGENT = attrgetter("carrier_trunk_id"), attrgetter("agent_trunk_id")
_Prefix = tuple[int, int]
"""IP version and prefix length."""


class Table:
    """All routes of one version. `apply` changes it at once; nothing sees it half-way."""

    def __init__(self, snapshot: Snapshot = EMPTY) -> None:
        self.version = snapshot.version
        self.limits, self.default_limits = snapshot.limits, snapshot.default_limits
        self.trunks: dict[str, Trunk] = {}
        self.numbers: dict[str, tuple[Number, ...]] = snapshot.numbers
        self._by_network: dict[_Prefix, dict[int, set[str]]] = {}
        self._by_username: dict[str, set[str]] = defaultdict(set)
        self._open: set[str] = set()
        self._uses: Counter[str] = Counter()
        """How many numbers in service come or go through each trunk, by its id."""
        in_service = [n for held in self.numbers.values() for n in held if n.disabled_reason is None]
        self._uses.update(map(_CARRIER, in_service))
        self._uses.update(filter(None, map(_AGENT, in_service)))
        for trunk in snapshot.trunks.values():
            self._add(trunk)

    @property
    def takes_digests(self) -> bool:
        """Whether any trunk lets its carrier in by username and password."""
        return bool(self._by_username)

    def snapshot(self) -> Snapshot:
        """Return all of it, as a copy that later changes do not reach."""
        return Snapshot(
            version=self.version,
            trunks=dict(self.trunks),
            numbers=dict(self.numbers),
            limits=self.limits,
            default_limits=self.default_limits,
        )

    def apply(self, delta: Delta) -> None:
        """Go on to the delta's version; raise ValueError if it does not begin at ours."""
        if delta.base != self.version:
            raise ValueError("the delta begins at another version")
        for id_, trunk in delta.trunks.items():
            self._remove(id_)
            if trunk is not None:
                self._add(trunk)
        for e164, number_id in delta.removed:
            self._hold(e164, [held for held in self.numbers.get(e164, ()) if held.id != number_id])
        for number in delta.numbers:
            others = [held for held in self.numbers.get(number.e164, ()) if held.id != number.id]
            self._hold(number.e164, sorted([*others, number], key=lambda held: held.id))
        self.limits, self.default_limits, self.version = delta.limits, delta.default_limits, delta.version

    def limits_of(self, account_id: str, mode: Mode) -> tuple[str, Limits]:
        """Return the key that an account's calls are counted under, and its limits."""
        return account_key(account_id, mode), self.limits.get(account_id, self.default_limits)

    def trunks_in_use(self) -> list[Trunk]:
        """Return the trunks that calls may go to: numbers in service are on them, or they stand in for such."""
        used = [self.trunks[id_] for id_ in self._uses if id_ in self.trunks]
        stand_ins = {id_ for trunk in used for id_ in trunk.failover_trunk_ids if id_ in self.trunks}
        return [*used, *(self.trunks[id_] for id_ in sorted(stand_ins - self._uses.keys()))]

    def trunks_of_source(self, source: IPAddress) -> list[Trunk]:
        """Return the trunks whose allowed addresses hold `source`, and the open ones; by id."""
        ids = set(self._open)
        for (version, length), networks in self._by_network.items():
            if version == source.version:
                ids |= networks.get(int(source) >> source.max_prefixlen - length, set())
        return [self.trunks[id_] for id_ in sorted(ids)]

    def allowed_networks(self) -> Iterator[IPNetwork]:
        """Yield each network that some trunk allows by name; an open trunk allows none in particular."""
        for (version, length), starts in self._by_network.items():
            network, bits = (ipaddress.IPv4Network, 32) if version == 4 else (ipaddress.IPv6Network, 128)
            for start in starts:
                yield network((start << bits - length, length))

    def trunks_of_username(self, username: str) -> list[Trunk]:
        """Return the trunks with this username; by id."""
        return [self.trunks[id_] for id_ in sorted(self._by_username.get(username, ()))]

    def _add(self, trunk: Trunk) -> None:
        self.trunks[trunk.id] = trunk
        for prefix, start in _places(trunk.allowed_addresses):
            self._by_network.setdefault(prefix, {}).setdefault(start, set()).add(trunk.id)
        if trunk.username is not None and trunk.password:
            self._by_username[trunk.username].add(trunk.id)
        if trunk.is_open:
            self._open.add(trunk.id)

    def _remove(self, trunk_id: str) -> None:
        trunk = self.trunks.pop(trunk_id, None)
        if trunk is None:
            return
        for prefix, start in _places(trunk.allowed_addresses):
            _discard(self._by_network[prefix], start, trunk_id)
            if not self._by_network[prefix]:
                del self._by_network[prefix]
        if trunk.username is not None and trunk.password:
            _discard(self._by_username, trunk.username, trunk_id)
        self._open.discard(trunk_id)

    def _hold(self, e164: str, numbers: list[Number]) -> None:
        self._use(self.numbers.get(e164, ()), -1)
        self._use(numbers, 1)
        if numbers:
            self.numbers[e164] = tuple(numbers)
        else:
            self.numbers.pop(e164, None)

    def _use(self, numbers: Iterable[Number], change: int) -> None:
        for number in numbers:
            if number.disabled_reason is None:
                for id_ in filter(None, (number.carrier_trunk_id, number.agent_trunk_id)):
                    self._uses[id_] += change
                    if not self._uses[id_]:
                        del self._uses[id_]


def networks_of(addresses: Iterable[str]) -> list[IPNetwork]:
    """Return the networks that addresses and CIDR networks name."""
    return [ipaddress.ip_network(address, strict=False) for address in addresses]


def _places(addresses: Iterable[str]) -> set[tuple[_Prefix, int]]:
    return {
        ((net.version, net.prefixlen), int(net.network_address) >> net.max_prefixlen - net.prefixlen)
        for net in networks_of(addresses)
    }


def _discard(index: dict[Key, set[str]], key: Key, trunk_id: str) -> None:
    held = index.get(key)
    if held is not None:
        held.discard(trunk_id)
        if not held:
            del index[key]
