"""Calls one side of a call: its trunk's server, and where that does not take the call, what stands in for it."""

from collections.abc import Awaitable, Callable

from voxpria_routing.hosts import bracketed, host_port
from voxpria_sip.endpoint import new_tag
from voxpria_sip.message import Headers, Request

from voxpria_edge.bridge.bridged import Bridged
from voxpria_edge.bridge.caller import Caller
from voxpria_edge.bridge.side import ALLOW
from voxpria_edge.calls.half import Half
from voxpria_edge.media import negotiation
from voxpria_edge.media.negotiation import Media

Pairs = tuple[tuple[str, str], ...]
"""Headers, as name and value."""


class Calling:
    """INVITEs of ours in one call, through our own Kamailio."""

    def __init__(self, bridged: Bridged, caller: Caller) -> None:
        self._bridged, self._caller = bridged, caller

    async def call(
        self,
        half: Half,
        described: Callable[[Half, Media, str], Awaitable[Request]],
        on_ringing: Callable[[], None] = lambda: None,
    ) -> Half:
        """Call one side: its trunk, and where that does not take the call, what stands in for it; return the last try.

        Each is offered what its trunk wants, and if it does not speak that, all there is. `described` writes the INVITE
        with an offer, by rtpengine's flags.
        """
        while not self._bridged.ended.is_set():
            media = negotiation.media(half.decision, half.target, is_captured=self._bridged.call.is_captured)
            for flags in dict.fromkeys((media.to_agent, media.to_agent_again)):
                half.has_another_offer = flags != media.to_agent_again
                request = await described(half, media, flags)
                is_taken = await self._caller.invite(request, half, self._bridged.ended, on_ringing)
                if is_taken or self._bridged.ended.is_set() or not half.is_offered_more(half.code):
                    break
            following = half.next()
            if is_taken or following is None:
                break
            half = following
        return half

    def sender(self, number: str) -> str:
        """Return a number as From has it, without a tag."""
        return f"<sip:{number}@{bracketed(self._caller.kamailio[0])}>"

    def invite(self, tag_prefix: str, sender: str, called: str, offer: str, more: Pairs = ()) -> Request:
        """Return an INVITE to Kamailio, with `more` headers beside ours."""
        uri = f"sip:{called}@{host_port(*self._caller.kamailio)}"
        headers = Headers([("Max-Forwards", "70")])
        headers.add("From", f"{sender};tag={tag_prefix}{new_tag()}")
        headers.add("To", f"<{uri}>")
        headers.add("Call-ID", self._bridged.call.sip_call_id)
        # not that of the INVITE that came in, whose Call-ID it has too: Kamailio is to tell them apart
        headers.add("CSeq", f"{self._bridged.call.cseq + 1} INVITE")
        headers.add("Contact", self._bridged.contact)
        headers.add("Allow", ALLOW)
        headers.add("Content-Type", "application/sdp")
        for name, value in more:
            headers.add(name, value)
        return Request(headers, method="INVITE", uri=uri, body=offer.encode())
