"""What every provider's adapter takes, gives, and raises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import httpx2

Mode = Literal["test", "live"]


class RefusedError(Exception):
    """The provider said no; asking again changes nothing. The text is the provider's reason, for the customer."""


class UnreachableError(Exception):
    """The provider could not be asked, or was too busy: asking again later may help. The text says what happened."""


@dataclass(frozen=True)
class NumberOrder:
    """A number that a provider is to take on."""

    e164: str
    mode: Mode
    server: str
    """SIP server of the trunk that calls go to."""
    transport: str
    """How that trunk's SIP goes, ours to it and its to us: udp, tcp or tls."""
    media_encryption: str
    """Of that trunk: disabled, allowed or required."""
    codecs: Sequence[str]
    """Those that it is held to, by their names in SDP; empty is all."""
    agent_id: str | None
    """The agent's id at the provider; None leaves it to the provider's own settings."""
    provider_number_id: str | None
    """The provider's id of the number, if it has taken it on before."""
    credentials: Mapping[str, str] = field(repr=False)
    """Of the trunk that calls go to, in clear."""
    is_trunk_provisioned: bool = False
    """Whether that trunk is provisioned as a whole, where its provider knows such a thing."""
    may_be_there: bool = False
    """Whether it was ordered before and nobody knows what came of that."""
    edge: str | None = None
    """Host, and port if it is not the transport's own, that the calls which its agent places are to be sent to: our
    edge's. None if there is no carrier for them, or the edge has no address that the provider could reach."""


@dataclass(frozen=True)
class Taken:
    """A number that a provider has taken on."""

    provider_number_id: str | None = None
    """The provider's id of it, if it gives one."""
    remark: str | None = None
    """What the number's owner should know, though it works."""


async def is_there(http: httpx2.AsyncClient, url: str) -> bool:
    """Tell whether a provider's API answers. Asked without a key: a refusal is an answer, a failure of its own none."""
    try:
        answer = await http.get(url)
    except httpx2.HTTPError:
        return False
    return answer.status_code < httpx2.codes.INTERNAL_SERVER_ERROR


class Provider(Protocol):
    """One kind of provider."""

    async def provision(self, order: NumberOrder) -> Taken:
        """Have the provider take the number on, or bring what it has up to date; the same order again is no error.

        Raises RefusedError or UnreachableError.
        """
        ...
