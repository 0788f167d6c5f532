"""Who calls: what its address and its digest answer prove, and the refusals of those who prove nothing. Pure."""

from collections.abc import Iterable, Sequence

from voxpria_routing import digest as digests
from voxpria_routing import explain, numbers
from voxpria_routing.case import Case
from voxpria_routing.decision import METHOD, Cause, Reject
from voxpria_routing.dialled import calling, clean
from voxpria_routing.digest import Digest
from voxpria_routing.snapshot import Number, Trunk


def known(case: Case) -> dict[str, Trunk] | Reject:
    """Return the trunks that the sender may call in through, by id; a Reject for a stranger's wrong or stale answer."""
    found = {trunk.id: trunk for trunk in case.table.trunks_of_source(case.source)}
    proven = _proven(case)
    if isinstance(proven, Reject):
        return proven
    for trunk in proven:
        found.setdefault(trunk.id, trunk)
        case.tried.append(f"digest of {trunk.username}: right for trunk {trunk.name}")
    _name(case, found.values())
    return found


def _name(case: Case, known: Iterable[Trunk]) -> None:
    """Take the caller for the number that it is, and note how it was read where that is not as it came."""
    sent = case.invite.from_user
    found = calling(sent, numbers.countries(known))
    if found is None:
        case.note(f"caller {clean(sent) or 'nobody'}: no phone number")
        return
    case.caller = found.e164
    if found.e164 != sent:
        case.note(f"caller {clean(sent)}: {found.e164} ({found.how})")


def _proven(case: Case) -> Sequence[Trunk] | Reject:
    """Return the trunks whose password the sender knows; a Reject for a wrong or stale answer of a stranger."""
    digest = case.invite.digest
    if digest is None:
        return []
    trunks = case.table.trunks_of_username(digest.username)
    proven = [t for t in trunks if digests.is_proven(digest, METHOD, t.password or "")]
    if not proven:
        return [] if case.table.trunks_of_source(case.source) else _wrong_credentials(case, digest, trunks)
    if digest.is_fresh and not digest.is_replayed:
        case.proven_by = digest
        return proven
    case.tried.append("digest answer: right, but to a challenge that is too old or was used before")
    return case.reject(
        Cause.CREDENTIALS_NEEDED,
        f"{case.source} answered a challenge that is too old or was used before; it was challenged anew.",
        mend="Nothing, if the next try came through; else have the carrier raise nc with each use of a nonce.",
        carrier=proven[0],
        is_stranger=True,
        is_stale=True,
    )


def _wrong_credentials(case: Case, digest: Digest, trunks: Sequence[Trunk]) -> Reject:
    held = numbers.dialled(case, [])
    number = numbers.preferred(case, held) if held else None
    carrier = case.table.trunks.get(number.carrier_trunk_id) if number else None
    is_theirs = carrier is not None and carrier in trunks
    username = digest.username[:64]
    case.tried.append(f"digest of {username!r}: {'wrong password' if is_theirs else 'no such username here'}")
    whose = f"trunk {carrier.name}" if carrier else "any trunk"
    return case.reject(
        Cause.CREDENTIALS_REFUSED,
        f"{case.source} gave credentials that are not those of {whose}.",
        nearest="the username is right, the password is not" if is_theirs else None,
        mend="Give the carrier the username and password that are in the trunk's credentials."
        if carrier is None
        else f"Give the carrier the username and password of trunk {carrier.id}, or set them anew.",
        number=number,
        carrier=carrier,
        is_stranger=True,
    )


def whose(case: Case, known: Sequence[Trunk]) -> Trunk | None:
    """Return the trunk whose call it is that means no number of ours; None if it may be that of several accounts.

    Carriers call many customers from the same addresses, and what one of them is called is no other's business.
    """
    if len({trunk.account_id for trunk in known}) != 1:
        return None
    return next((trunk for trunk in known if trunk.id == case.invite.trunk_hint), known[0])


def note_admitted(case: Case, trunk: Trunk) -> None:
    """Say that the address let the call in, where its password did not."""
    if case.proven_by is None or trunk in case.table.trunks_of_source(case.source):
        case.tried.append(f"source {case.source}: allowed on trunk {trunk.name}")


def no_number_of(case: Case, agent: Trunk) -> Reject:
    """Refuse what a provider's trunk sends: to no number that calls come in on, and from none that it may call as."""
    return case.reject(
        Cause.CALLER_NOT_ALLOWED,
        f"{case.caller or 'Nobody'} is no number of trunk {agent.name}, which places calls from its own numbers only; "
        f"and {case.called} is no number that calls come in on through it.",
        mend=f"Have the provider send a number whose engine is trunk {agent.id} in From; GET /v1/phone-numbers lists "
        "them.",
        carrier=agent,
    )


def stranger(case: Case, held: Sequence[Number]) -> Reject:
    """Answer a source that no trunk knows: the same whether the number is held or not, so none can be probed for.

    The record, if the number is somebody's, says more.
    """
    cause = Cause.CREDENTIALS_NEEDED if case.table.takes_digests else Cause.SOURCE_NOT_ALLOWED
    unanswered = ", and it answered no digest challenge" if case.table.takes_digests else ""
    number = numbers.preferred(case, held) if held else None
    carrier = case.table.trunks.get(number.carrier_trunk_id) if number else None
    if number is None or carrier is None:
        case.tried.append(f"source {case.source}: no trunk allows it")
        return case.reject(
            cause,
            f"{case.source} is in no trunk's allowed_addresses{unanswered}, "
            f"and {case.called} is not an imported number.",
            mend="If this is your carrier, add its address to the trunk's allowed_addresses and import the number.",
            is_stranger=True,
        )
    return not_allowed(case, cause, number, carrier, unanswered)


def not_allowed(case: Case, cause: Cause, number: Number, carrier: Trunk, unanswered: str = "") -> Reject:
    """Refuse a source that the number's own trunk does not allow."""
    allowed = ", ".join(carrier.allowed_addresses) or "nobody"
    case.tried.append(f"source {case.source}: trunk {carrier.name} allows {allowed}")
    by_digest = ", or have it use the trunk's username and password" if carrier.username else ""
    return case.reject(
        cause,
        f"{case.source} may not call {number.e164}: "
        f"it is not in the allowed_addresses of trunk {carrier.name}{unanswered}.",
        nearest=explain.nearest_network(carrier.allowed_addresses, case.source),
        mend=f"If this is your carrier, add {case.source} to config.allowed_addresses of trunk {carrier.id}"
        f"{by_digest}.",
        number=number,
        carrier=carrier,
        is_stranger=True,
    )
