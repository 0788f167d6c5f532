"""The two dialogs of a call that passes through us, each as the other side holds it: to speak in its place. Pure.

Kamailio is a proxy and forgets; from what is kept here, both sides can be told of a call's end after any restart.
"""

import dataclasses
from collections.abc import Sequence

from voxpria_sip.dialog import Dialog
from voxpria_sip.uri import Address, MalformedError, Uri, split

from voxpria_edge.proxy import messages

_HIGHEST_CSEQ = 2**31 - 1
"""RFC 3261 section 8.1.1.5."""


def to_caller(invite: messages.Invite) -> Dialog | None:
    """Return the dialog that the caller is about to have, without our tag; None if its INVITE leaves it unreachable."""
    return _dialog(
        call_id=invite.call_id,
        local=f"<{messages.text(invite.to_uri)}>",
        remote=f"<{messages.text(invite.from_uri)}>;tag={messages.text(invite.from_tag)}",
        contact=invite.contact,
        routes=_addresses(invite.record_route),
    )


def to_agent(answer: messages.Answered | messages.OfDialog) -> Dialog | None:
    """Return the dialog of the side that has answered; None if its answer leaves it unreachable."""
    return _dialog(
        call_id=answer.call_id,
        local=messages.text(answer.from_),
        remote=messages.text(answer.to),
        contact=answer.contact,
        routes=_beyond_us(answer),
    )


def answered(dialog: Dialog | None, answer: messages.Answered) -> Dialog | None:
    """Return the caller's dialog with the tag that it has got by the answer."""
    try:
        tag = Address.parse(messages.text(answer.to)).tag
    except MalformedError:
        return None
    return dialog and dataclasses.replace(dialog, local=f"{dialog.local};tag={tag}") if tag else None


def moved(dialog: Dialog | None, contact: str) -> Dialog | None:
    """Return a dialog whose side is where its Contact says from now on (RFC 3261 section 12.2.1.2)."""
    try:
        return dialog and dataclasses.replace(dialog, target=_target(contact))
    except MalformedError:
        return dialog


def has_tags(dialog: Dialog, local: str, remote: str) -> bool:
    """Tell whether a dialog is the one of these tags."""
    return (Address.parse(dialog.local).tag, dialog.remote_tag) == (local, remote)


def at_its_end(dialog: Dialog, *, is_again: bool = False) -> Dialog:
    """Return the dialog about to send its last request, or that once more with credentials.

    Its number must be above all before it, of which we have not seen every one. Gaps are allowed (section 12.2.2), so
    it is the highest there is, but for the one that the second needs.
    """
    return dataclasses.replace(dialog, local_cseq=_HIGHEST_CSEQ - (1 if is_again else 2))


def is_last(cseq: Sequence[str]) -> bool:
    """Tell whether a CSeq header is that of the request after which there can be no other."""
    return any(value.split()[:1] == [str(_HIGHEST_CSEQ)] for value in cseq)


def places(*dialogs: Dialog | None) -> str:
    """Return the hosts of the sides and of the proxies on their ways, between spaces; nothing if not all are known."""
    if None in dialogs:
        return ""
    try:
        uris = [uri for d in dialogs if d for uri in (d.target, *(Address.parse(route).uri for route in d.routes))]
        return f" {' '.join(dict.fromkeys(Uri.parse(uri).host for uri in uris))} "
    except MalformedError:  # a proxy's, beyond the first
        return ""


def _dialog(call_id: str, local: str, remote: str, contact: str, routes: list[str]) -> Dialog | None:
    """Return a dialog of parts that others have written; None if they do not make one, or would add a line to it."""
    try:
        dialog = Dialog(messages.text(call_id), local, remote, _target(contact), routes)
        Address.parse(local), Address.parse(remote), dialog.next_hop
    except MalformedError:
        return None
    parts = [dialog.call_id, local, remote, *routes]
    return None if any(part.splitlines() != [part] for part in parts) else dialog


def _target(contact: str) -> str:
    uri = Address.parse(messages.text(contact)).uri
    Uri.parse(uri)
    return uri


def _addresses(field: str) -> list[str]:
    return split(messages.text(field))


def _beyond_us(answer: messages.Answered | messages.OfDialog) -> list[str]:
    """Return the route set beyond us: what stands above our own entry, the nearest first."""
    beyond = []
    for route in _addresses(answer.record_route):
        if f"call={messages.text(answer.record)}" in route:
            break
        beyond.append(route)
    return beyond[::-1]
