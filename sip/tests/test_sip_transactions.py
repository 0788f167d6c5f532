"""Transactions and dialogs on a wire that the test holds."""

import asyncio
from collections.abc import Callable

import pytest
from voxpria_sip import transaction
from voxpria_sip.dialog import Dialog
from voxpria_sip.message import Headers, Request, Response, parse
from voxpria_sip.transaction import ServerTransaction, TransactionError, Transactions, cancel_of, response_to
from voxpria_sip.transport import TransportName
from voxpria_sip.uri import MalformedError


class Wire:
    """A flow that keeps what is sent."""

    transport: TransportName = "udp"
    local, remote, is_open = ("127.0.0.1", 5000), ("127.0.0.9", 6000), True

    def __init__(self) -> None:
        self.sent: list[Request | Response] = []

    def send(self, data: bytes) -> None:
        self.sent.append(parse(data))

    def requests(self, method: str) -> list[Request]:
        return [m for m in self.sent if isinstance(m, Request) and m.method == method]


class Core:
    """Keeps what comes up."""

    def __init__(self) -> None:
        self.requests: list[ServerTransaction] = []
        self.acks: list[Request] = []

    def on_request(self, transaction: ServerTransaction) -> None:
        self.requests.append(transaction)

    def on_ack(self, request: Request) -> None:
        self.acks.append(request)


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """All timers at a twentieth of RFC 3261's."""
    for name in ("T1_SECONDS", "T2_SECONDS", "LIFETIME_SECONDS"):
        monkeypatch.setattr(transaction, name, getattr(transaction, name) / 20)


def request(method: str, branch: str = "z9hG4bKa", to_tag: str = "") -> Request:
    headers = [
        ("Via", f"SIP/2.0/UDP 127.0.0.1:5000;branch={branch};rport"),
        ("From", "<sip:a@127.0.0.1>;tag=1"),
        ("To", f"<sip:b@127.0.0.9>{to_tag}"),
        ("Call-ID", "c"),
        ("CSeq", f"1 {method}"),
    ]
    return Request(Headers(headers), method=method, uri="sip:b@127.0.0.9")


def answer(to: Request, status: int) -> Response:
    return response_to(to, status, "Reason", "2")


async def until(condition: Callable[[], bool], seconds: float = 3) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_request_is_repeated_until_it_is_answered() -> None:
    wire, transactions = Wire(), Transactions(Core())
    invite = transactions.send(request("INVITE"), wire)
    await until(lambda: len(wire.sent) == 3)
    transactions.receive(answer(invite.request, 100), wire)
    await asyncio.sleep(0.3)
    assert len(wire.sent) == 3
    transactions.close()


async def test_a_request_that_nobody_answers_fails_in_time() -> None:
    wire, transactions = Wire(), Transactions(Core())
    for method, sendings in (("INVITE", 7), ("OPTIONS", 11)):  # RFC 3261 sections 17.1.1.2 and 17.1.2.2
        wire.sent.clear()
        with pytest.raises(TransactionError):
            await transactions.send(request(method), wire).final()
        assert sendings - 2 <= len(wire.sent) <= sendings  # on a busy machine, one may come too late


async def test_a_refused_invite_is_acknowledged_each_time_and_told_once() -> None:
    wire, transactions = Wire(), Transactions(Core())
    invite = transactions.send(request("INVITE"), wire)
    for _ in range(3):
        transactions.receive(answer(invite.request, 486), wire)
    assert (await invite.final()).status == 486
    acks = wire.requests("ACK")
    assert len(acks) == 3
    assert acks[0].headers.get("To") == "<sip:b@127.0.0.9>;tag=2"
    assert acks[0].via.params["branch"] == "z9hG4bKa"
    transactions.close()


async def test_a_repeated_success_is_acknowledged_again() -> None:
    wire, transactions = Wire(), Transactions(Core())
    invite = transactions.send(request("INVITE"), wire)
    transactions.receive(answer(invite.request, 200), wire)
    assert (await invite.final()).is_success
    repeated: list[None] = []
    invite.resend_ack = lambda: repeated.append(None)
    transactions.receive(answer(invite.request, 200), wire)
    assert len(repeated) == 1
    transactions.close()


async def test_a_repeated_request_is_answered_as_before_and_told_once() -> None:
    wire, core = Wire(), Core()
    transactions = Transactions(core)
    for _ in range(3):
        transactions.receive(request("OPTIONS"), wire)
    (options,) = core.requests
    options.respond(answer(options.request, 200))
    transactions.receive(request("OPTIONS"), wire)
    options.respond(answer(options.request, 500))
    assert [message.status for message in wire.sent if isinstance(message, Response)] == [200, 200]
    assert wire.sent[0].via.params["rport"] == "6000"
    assert wire.sent[0].via.params["received"] == "127.0.0.9"
    transactions.close()


@pytest.mark.parametrize("status", [486, 200])
async def test_an_invites_answer_is_repeated_until_its_ack(status: int) -> None:
    wire, core = Wire(), Core()
    transactions = Transactions(core)
    transactions.receive(request("INVITE"), wire)
    (invite,) = core.requests
    invite.respond(answer(invite.request, status))
    await until(lambda: len(wire.sent) == 3)
    if status == 200:
        transactions.receive(request("ACK", "z9hG4bKother", ";tag=2"), wire)
        assert len(core.acks) == 1
        invite.acknowledged.set()
    else:
        transactions.receive(request("ACK"), wire)
        assert not core.acks
    await asyncio.sleep(0.3)
    assert len(wire.sent) == 3
    transactions.close()


async def test_an_answer_after_long_ringing_is_repeated_as_long_as_any_and_that_nobody_acknowledges_it_is_told() -> (
    None
):
    wire, core = Wire(), Core()
    transactions = Transactions(core)
    transactions.receive(request("INVITE"), wire)
    [invite] = core.requests
    lost = asyncio.Event()
    invite.on_unacknowledged = lost.set
    await asyncio.sleep(transaction.LIFETIME_SECONDS * 0.75)
    invite.respond(answer(invite.request, 200))
    answered = asyncio.get_running_loop().time()
    await asyncio.wait_for(lost.wait(), 30)
    assert asyncio.get_running_loop().time() - answered > transaction.LIFETIME_SECONDS * 0.9
    transactions.close()


async def test_cancel_reaches_an_invite_that_still_rings_and_no_other() -> None:
    wire, core = Wire(), Core()
    transactions = Transactions(core)
    transactions.receive(request("INVITE"), wire)
    (invite,) = core.requests
    transactions.receive(cancel_of(request("INVITE")), wire)
    assert invite.canceled.is_set()
    transactions.receive(cancel_of(request("INVITE", "z9hG4bKunknown")), wire)
    assert [m.status for m in wire.sent if isinstance(m, Response)] == [200, 481]
    transactions.close()


async def test_a_lost_connection_fails_what_waits_on_it() -> None:
    wire, transactions = Wire(), Transactions(Core())
    options = transactions.send(request("OPTIONS"), wire)
    transactions.lost(wire)
    with pytest.raises(TransactionError):
        await options.final()


ROUTES = ["<sip:127.0.0.5:5060;lr>", "<sip:127.0.0.6;transport=tcp;lr>"]


def invite_with(routes: list[str]) -> Request:
    invite = request("INVITE")
    for name, value in [("Contact", "<sip:caller@127.0.0.1:5000>"), *(("Record-Route", route) for route in routes)]:
        invite.headers.add(name, value)
    return invite


def test_the_called_side_keeps_the_route_and_the_caller_reverses_it() -> None:
    called = Dialog.of_called(invite_with(ROUTES), "2")
    bye = called.request("BYE")
    assert bye.headers.all("Route") == ROUTES
    assert (bye.uri, bye.cseq) == ("sip:caller@127.0.0.1:5000", (1, "BYE"))
    assert bye.recipient.tag == "1"
    assert str(called.next_hop) == "sip:127.0.0.5:5060;lr"
    response = answer(request("INVITE"), 200)
    response.headers.add("Record-Route", ", ".join(ROUTES))
    response.headers.add("Contact", "<sip:called@127.0.0.9>")
    caller = Dialog.of_caller(request("INVITE"), response)
    bye = caller.request("BYE")
    assert bye.headers.all("Route") == ROUTES[::-1]
    assert (bye.uri, bye.cseq, caller.key) == ("sip:called@127.0.0.9", (2, "BYE"), ("c", "1"))


def test_a_strict_router_gets_the_request_in_its_name() -> None:
    bye = Dialog.of_called(invite_with(["<sip:127.0.0.5>", ROUTES[1]]), "2").request("BYE")
    assert bye.uri == "sip:127.0.0.5"
    assert bye.headers.all("Route") == [ROUTES[1], "<sip:caller@127.0.0.1:5000>"]


def test_requests_out_of_order_and_dialogs_without_contact_are_refused() -> None:
    dialog = Dialog.of_called(invite_with([]), "2")
    assert not dialog.is_in_order(request("BYE"))
    later = request("BYE")
    later.headers.set("CSeq", "2 BYE")
    assert dialog.is_in_order(later)
    with pytest.raises(MalformedError):
        Dialog.of_called(request("INVITE"), "2")
    with pytest.raises(MalformedError):
        Dialog.of_called(invite_with(["<sip:127.0.0.5;lr>"] * 17), "2")
