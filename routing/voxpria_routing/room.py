"""Whether there is room: the caps of the account and its trunks, and the refusal where one is reached. Pure."""

from voxpria_routing.case import Case
from voxpria_routing.decision import Cause, Reject
from voxpria_routing.load import Full, full
from voxpria_routing.snapshot import Number, Trunk

_SETTINGS = {"calls": "max_concurrent_calls", "rate": "max_calls_per_second"}


def no_room(case: Case, number: Number, carrier: Trunk) -> Reject | None:
    """Refuse a call that the account, or the trunk it comes in through, has no room for."""
    key, limits = case.table.limits_of(number.account_id, number.mode)
    reached = full(case.load, key, limits.max_concurrent_calls, limits.max_calls_per_second)
    if reached is not None:
        return _crowded(case, reached, "the account", "Ask the operator for a higher limit.", number, carrier)
    reached = is_full(case, carrier)
    if reached is not None:
        mend = f"Raise config.{_SETTINGS[reached.limit]} of trunk {carrier.id}."
        return _crowded(case, reached, f"trunk {carrier.name}", mend, number, carrier)
    return None


def is_full(case: Case, trunk: Trunk) -> Full | None:
    """Return the trunk's cap that one more call would break."""
    return full(case.load, trunk.id, trunk.max_concurrent_calls, trunk.max_calls_per_second)


def target_is_full(case: Case, reached: Full, target: Trunk, number: Number, carrier: Trunk) -> Reject:
    """Refuse a call that neither its target nor what stands in for that has room for."""
    mend = f"Raise config.{_SETTINGS[reached.limit]} of trunk {target.id}, or add config.failover_trunk_ids."
    return _crowded(case, reached, f"trunk {target.name}", mend, number, carrier)


def _crowded(case: Case, reached: Full, what: str, mend: str, number: Number, carrier: Trunk) -> Reject:
    cause = Cause.TOO_MANY_CALLS if reached.limit == "calls" else Cause.CALLS_TOO_FAST
    case.tried.append(f"limits of {what}: {reached.sentence}")
    return case.reject(
        cause,
        f"{what[0].upper()}{what[1:]} has no room for this call: {reached.sentence}.",
        mend=mend,
        number=number,
        carrier=carrier,
        retry_after_seconds=reached.retry_after_seconds,
    )
