"""Which number is meant: how what was dialled is read, who holds it, and the refusal where nobody does. Pure."""

from collections.abc import Iterable, Sequence

from voxpria_routing import explain
from voxpria_routing.case import Case
from voxpria_routing.decision import Cause, Reject
from voxpria_routing.dialled import Reading, calling, clean, is_emergency, readings
from voxpria_routing.snapshot import Number, Trunk


def dialled(case: Case, known: Sequence[Trunk]) -> tuple[Number, ...]:
    """Return who holds the dialled number, and note how it was read; `known` are the sender's trunks."""
    user = case.invite.request_user
    found = readings(user, countries(known))
    if not found and case.invite.to_user:
        found = [Reading(r.e164, f"{r.how}, from To") for r in readings(case.invite.to_user, countries(known))]
    if not found:
        case.note(f"dialled {clean(user) or 'nothing'}: not a phone number")
        return ()
    reading = next((r for r in found if r.e164 in case.table.numbers), found[0])
    case.called = reading.e164
    case.note(f"dialled {clean(user)}: {reading.e164} ({reading.how})")
    return case.table.numbers.get(reading.e164, ())


def dialled_out(case: Case, trunks: Sequence[Trunk]) -> bool:
    """Read the dialled number as one of the world's, and note how; False if it is none.

    Nobody here holds it, so there is nothing to try the readings on: one that somebody may have goes first.
    """
    user = case.invite.request_user
    found = calling(user, countries(trunks))
    if found is None:
        return False
    case.called = found.e164
    case.tried = [line for line in case.tried if not line.startswith("dialled ")]
    case.note(f"dialled {clean(user)}: {found.e164} ({found.how})")
    return True


def countries(trunks: Iterable[Trunk]) -> list[str]:
    """Return whose national numbers may come through these trunks (ISO 3166)."""
    return sorted({trunk.country for trunk in trunks if trunk.country})


def preferred(case: Case, numbers: Sequence[Number]) -> Number:
    """Return the one of several that is meant: of the trunk that the INVITE hints at, else the first imported."""
    hinted = [n for n in numbers if n.carrier_trunk_id == case.invite.trunk_hint]
    number = min(hinted or numbers, key=lambda n: n.id)
    case.note(f"number {number.e164}: known")
    return number


def not_held(case: Case, carrier: Trunk | None) -> Reject:
    """Refuse a number that nobody holds, or that is none, to one of our trunks' carriers; None if it is of several."""
    if is_emergency(case.called, countries([carrier] if carrier else [])):
        return _emergency(case, carrier)
    if not readings(case.called):
        return case.reject(
            Cause.INVALID_NUMBER,
            f"{case.called!r} is not a phone number.",
            mend=f"Have the {'provider' if case.is_outbound else 'carrier'} send the dialled number in E.164 form "
            "(+15551234567) as user of the request URI, or set the trunk's config.country if it sends national ones.",
            carrier=carrier,
        )
    case.note(f"number {case.called}: not imported")
    return case.reject(
        Cause.NUMBER_NOT_FOUND,
        f"{case.called} is not an imported number.",
        mend=f"Import {case.called} with POST /v1/phone-numbers/import, or have the carrier stop sending it here.",
        nearest=explain.nearest_number(case.table, carrier, case.called) if carrier else None,
        carrier=carrier,
    )


def _emergency(case: Case, carrier: Trunk | None) -> Reject:
    """Refuse a call for help: nothing here knows where the caller is, and no agent is to be reached instead."""
    mend = "Have the carrier take emergency calls to the emergency services itself."
    if case.is_outbound:
        mend = "Have the agent tell whoever asks for this to dial it from their own telephone."
    return case.reject(
        Cause.INVALID_NUMBER,
        f"{case.called} is an emergency number, and emergency calls are not taken here: nobody could say from where.",
        mend=mend,
        carrier=carrier,
    )


def inactive(case: Case, number: Number, carrier: Trunk, reason: str) -> Reject:
    """Refuse a number that is out of service; `reason` is a sentence without its full stop."""
    return case.reject(
        Cause.NUMBER_INACTIVE,
        f"{number.e164} is not in service: {reason}.",
        mend=f"Mend that, then POST /v1/phone-numbers/{number.id}/provision.",
        number=number,
        carrier=carrier,
    )
