"""How good a call sounded: one word and the numbers behind it. Pure.

The words are the bands of user satisfaction of ITU-T G.107 Annex B (table B.1), two of which we join at either end:

| R-value from | MOS from | G.107's words | ours |
|---|---|---|---|
| 80 | 4.03 | satisfied, very satisfied | excellent |
| 70 | 3.60 | some users dissatisfied | good |
| 60 | 3.10 | many users dissatisfied | fair |
| 0 | 1 | nearly all users dissatisfied, or not recommended | poor |

A call is as good as its worse direction.
"""

from typing import Any, Literal

import msgspec
from voxpria_routing.events import Measured

Label = Literal["excellent", "good", "fair", "poor"]

_BANDS: tuple[tuple[float, Label], ...] = ((4.03, "excellent"), (3.60, "good"), (3.10, "fair"))


def label(mos: float) -> Label:
    """Return the word for a mean opinion score."""
    return next((word for least, word in _BANDS if mos >= least), "poor")


def summarise(measured: Measured) -> dict[str, Any] | None:
    """Return what the API shows as `quality`; None if neither side sent anything that could be measured."""
    scores = [side.mos for side in (measured.caller, measured.agent) if side is not None]
    if not scores:
        return None
    return {
        "label": label(min(scores)),
        "mos": min(scores),
        "source": measured.source,
        "caller": msgspec.to_builtins(measured.caller),
        "agent": msgspec.to_builtins(measured.agent),
    }
