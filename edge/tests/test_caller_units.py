"""What our own INVITEs come to when their call ends before they are answered."""

import asyncio

import pytest
from kamailio_words import NUMBER, TRUNK
from voxpria_edge.bridge.caller import Caller
from voxpria_edge.calls.half import Half
from voxpria_routing.decision import Dial, Explanation
from voxpria_sip.endpoint import Endpoint, respond
from voxpria_sip.message import Headers, Request
from voxpria_sip.transaction import ServerTransaction

pytestmark = pytest.mark.unit
ADDRESS = "127.0.0.1"
DIAL = Dial(
    number=NUMBER,
    carrier=TRUNK,
    targets=(TRUNK,),
    caller=NUMBER.e164,
    called="+13035550188",
    explanation=Explanation(summary="", tried=()),
)


def invite() -> Request:
    headers = [
        ("From", "<sip:a@example.com>;tag=a"),
        ("To", "<sip:b@example.com>"),
        ("Call-ID", "c"),
        ("CSeq", "1 INVITE"),
    ]
    return Request(Headers(headers), method="INVITE", uri="sip:b@example.com")


@pytest.mark.parametrize("is_refused", [True, False])
async def test_a_half_is_cancelled_unless_kamailio_was_told_to_refuse_it(is_refused: bool) -> None:
    """A CANCEL that overtakes the refusal would be answered in its place: 487, whatever the server said."""
    asked: asyncio.Queue[ServerTransaction] = asyncio.Queue()

    async def take(transaction: ServerTransaction) -> None:
        respond(transaction, 100, "Trying")
        asked.put_nowait(transaction)
        await transaction.canceled.wait()
        respond(transaction, 487, "Request Terminated")

    kamailio, ours = Endpoint(ADDRESS, {"INVITE": take}, "kamailio"), Endpoint(ADDRESS, {}, "ours")
    await kamailio.transports.listen_udp(0)
    await ours.transports.listen_udp(0)
    half, ended = Half("call_1", "call_1", DIAL, 0), asyncio.Event()
    caller = Caller(ours, (ADDRESS, kamailio.transports.ports["udp"]), lambda _: None)
    calling = asyncio.create_task(caller.invite(invite(), half, ended))
    transaction = await asyncio.wait_for(asked.get(), 60)
    half.cause = "rejected" if is_refused else ""
    ended.set()
    if is_refused:
        while not calling.done() and not transaction.canceled.is_set():
            await asyncio.sleep(0.2)
            respond(transaction, 486, "Busy Here")
    assert not await asyncio.wait_for(calling, 60)
    assert half.code == (486 if is_refused else 487)
    assert transaction.canceled.is_set() is not is_refused
    await ours.close()
    await kamailio.close()
