"""How a call sounded, estimated from its packets: the E-model, ITU-T G.107 (06/2015).

All of its parameters stand at their defaults (table 2 there) but delay and loss. Equipment impairment and loss
robustness are those of ITU-T G.113 appendix I for G.711 with packet loss concealment; G.722 is rated on the same
narrowband scale, so it is never praised for its width.
"""

import math

_DEFAULT_R = 93.2
"""R with every parameter at its default (G.107 section 7.7)."""
_EQUIPMENT_IMPAIRMENT = 0.0
_LOSS_ROBUSTNESS = 25.1
"""Bpl of G.711 with concealment (G.113 appendix I, table I.4)."""


def rating(loss_percent: float, delay_ms: float = 0.0) -> float:
    """Return the transmission rating R for random packet loss and a one-way delay."""
    return _DEFAULT_R - delay_impairment(delay_ms) - loss_impairment(loss_percent)


def loss_impairment(
    loss_percent: float, equipment: float = _EQUIPMENT_IMPAIRMENT, robustness: float = _LOSS_ROBUSTNESS
) -> float:
    """Return Ie-eff (G.107 equation 7-29) for random loss (BurstR 1)."""
    if loss_percent <= 0:
        return equipment
    return equipment + (95 - equipment) * loss_percent / (loss_percent + robustness)


def delay_impairment(delay_ms: float) -> float:
    """Return Idd (G.107 equations 7-27 and 7-28, for sT = 1 and mT = 100 ms)."""
    if delay_ms <= 100:
        return 0.0
    x = math.log2(delay_ms / 100)
    return 25 * (math.pow(1 + x**6, 1 / 6) - 3 * math.pow(1 + (x / 3) ** 6, 1 / 6) + 2)


def mean_opinion_score(r: float) -> float:
    """Return the estimated MOS of a rating (G.107 annex B), 1 to 4.5."""
    if r <= 0:
        return 1.0
    if r >= 100:
        return 4.5
    return max(1.0, 1 + 0.035 * r + r * (r - 60) * (100 - r) * 7e-6)


def playout_delay_ms(jitter_ms: float, packet_ms: float = 20.0) -> float:
    """Return the delay of a receiver that buffers twice the jitter beside one packet: the part that packets show."""
    return packet_ms + 2 * jitter_ms
