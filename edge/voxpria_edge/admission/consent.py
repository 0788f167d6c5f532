"""Whether a call that would be recorded may be: where its trunk has an announcement, only if that can be spoken."""

from collections.abc import Callable
from pathlib import Path

import msgspec
from voxpria_routing.decision import Dial
from voxpria_routing.snapshot import Announcement, Trunk

from voxpria_edge.media import negotiation

SoundOf = Callable[[Announcement], Path | None]


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """A call as it goes on."""

    decision: Dial
    """Without any recording, if there is to be none."""
    sound: Path | None = None
    """To be spoken before anything is recorded."""
    unrecorded: str | None = None
    """Why the call is not recorded, as a sentence."""


def of_caller(decision: Dial, sound_of: SoundOf) -> Consent:
    """Return how a call that comes in goes on."""
    announcement = _announcement(decision)
    if announcement is None:
        return Consent(decision=decision)
    if decision.is_outbound and decision.offered is None:
        return _unrecorded(decision, "the INVITE of the trunk that placed the call offered no media")
    if not decision.is_outbound and negotiation.spoken_codec(decision) is None:
        return _unrecorded(decision, "the INVITE offered no codec that it could be spoken in")
    return _spoken(decision, sound_of(announcement))


def of_callee(decision: Dial, sound_of: SoundOf) -> Consent:
    """Return how a call that the API places goes on."""
    announcement = _announcement(decision)
    return Consent(decision=decision) if announcement is None else _spoken(decision, sound_of(announcement))


def _spoken(decision: Dial, sound: Path | None) -> Consent:
    if sound is None:
        return _unrecorded(decision, "the edge has not been able to make its sound; its log says why")
    return Consent(decision=decision, sound=sound)


def _announcement(decision: Dial) -> Announcement | None:
    """Return what is to be spoken: the announcement of the carrier's trunk, else of the next that has one."""
    inward = (decision.carrier, *decision.targets)
    trunks = (*decision.targets, decision.carrier) if decision.is_outbound else inward
    if not any(trunk.is_recorded for trunk in trunks):
        return None
    return next((trunk.announcement for trunk in trunks if trunk.announcement), None)


def unspoken(why: str) -> str:
    """Return the sentence that a call's record has, where its announcement could not be spoken."""
    return f"The call was not recorded, as its trunk's announcement could not be spoken: {why}."


def _unrecorded(decision: Dial, why: str) -> Consent:
    return Consent(decision=_without_recording(decision), unrecorded=unspoken(why))


def _without_recording(decision: Dial) -> Dial:
    """Return the decision with nothing recorded on any of its trunks."""

    def unrecorded(trunk: Trunk) -> Trunk:
        return msgspec.structs.replace(trunk, is_recorded=False)

    targets = tuple(unrecorded(target) for target in decision.targets)
    return msgspec.structs.replace(decision, carrier=unrecorded(decision.carrier), targets=targets)
