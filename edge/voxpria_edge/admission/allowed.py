"""Which addresses trunks let in, told to Kamailio: what guards against floods must not keep out a carrier."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog
from voxpria_routing.table import IPNetwork, Table

from voxpria_edge.proxy.kamailio import Rpc, RpcError

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 6.0
"""Kamailio reads the file again after 5 s at the soonest."""


class Allowed:
    """Keeps Kamailio's file of allowed addresses as the routes have them. It outlives both, so neither waits for it."""

    def __init__(self, table: Callable[[], Table], file: Path, rpc: Rpc) -> None:
        """`table` gives the routes in force; `file` is what Kamailio reads (its permissions module)."""
        self._table, self._file, self._rpc = table, file, rpc
        self._version = 0
        self._is_told = True

    async def run(self) -> None:
        """Follow the routes, until cancelled."""
        while True:
            try:
                await self._look()
            except (OSError, RpcError) as error:
                _log.warning("Kamailio does not know all allowed addresses", error=str(error))
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self) -> None:
        """Have Kamailio hear of what has changed; raise OSError or RpcError."""
        table = self._table()
        if table.version != self._version:
            version, text = table.version, records(table.allowed_networks())
            if text != await asyncio.to_thread(_read, self._file):
                await asyncio.to_thread(_write, self._file, text)
                self._is_told = False
            self._version = version
        if not self._is_told:
            await self._rpc.call("permissions.addressReload")
            self._is_told = True


def records(networks: Iterable[IPNetwork]) -> str:
    """Return the file's text: one network a line, in the group of the allowed."""
    return "".join(sorted(f"1 {network.network_address} {network.prefixlen}\n" for network in networks))


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _write(file: Path, text: str) -> None:
    """Replace the file: Kamailio finds it whole whenever it looks."""
    unfinished = file.with_suffix(".new")
    unfinished.write_text(text)
    unfinished.replace(file)
