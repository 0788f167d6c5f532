"""What was wrong with a call's audio, in a word each. Pure."""

from voxpria_routing.events import Issue

from voxpria_edge.media.job import Sound

_SHORTEST_CALL_SECONDS = 1.0
"""In a call over before that, nothing was wrong yet."""
_JUDGED_FROM_SECONDS = 2.0
_LEAST_LOUD_SECONDS = 0.1
_LATE_SECONDS = 3.0


def heard(answered_at: float, ended_at: float, caller: Sound | None, agent: Sound | None) -> tuple[Issue, ...]:
    """Return what was wrong, given what there was to hear of each side; times are seconds since 1970."""
    seconds = ended_at - answered_at
    found = list(missing(seconds, has_caller=caller is not None, has_agent=agent is not None))
    if caller is not None:
        found += ["caller_silent"] if _is_silent(caller) else []
        found += ["caller_audio_late"] if _is_late(caller, answered_at) else []
    if agent is not None:
        found += ["agent_silent"] if _is_silent(agent) else []
        found += ["agent_audio_late"] if _is_late(agent, answered_at) else []
    return tuple(found)


def missing(seconds: float, *, has_caller: bool, has_agent: bool) -> tuple[Issue, ...]:
    """Return what was wrong with who sent audio at all, in a conversation of so many seconds."""
    if seconds < _SHORTEST_CALL_SECONDS or (has_caller and has_agent):
        return ()
    return ("one_way_audio",) if has_caller or has_agent else ("no_audio",)


def _is_silent(sound: Sound) -> bool:
    return sound.seconds >= _JUDGED_FROM_SECONDS and sound.loud_seconds < _LEAST_LOUD_SECONDS


def _is_late(sound: Sound, answered_at: float) -> bool:
    return sound.first_at - answered_at > _LATE_SECONDS
