"""G.711 (ITU-T G.711), by tables: 16-bit linear samples to one byte and back."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int16]
Codec = Literal["PCMU", "PCMA"]
RATE = 8000
"""Samples a second."""


def _decode_mu() -> Samples:
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = (((code & 0x0F).astype(np.int32) << 3) + 0x84 << ((code >> 4) & 7)) - 0x84
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _decode_a() -> Samples:
    code = np.arange(256, dtype=np.uint8) ^ 0x55
    mantissa, segment = (code & 0x0F).astype(np.int32), ((code >> 4) & 7).astype(np.int32)
    magnitude = np.where(segment == 0, (mantissa << 4) + 8, (mantissa << 4) + 0x108 << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _nearest(decoded: Samples) -> NDArray[np.uint8]:
    """Return the code nearest to each 16-bit value, by the midpoints between what the codes mean."""
    order = np.argsort(decoded, kind="stable")
    levels = decoded[order].astype(np.int32)
    midpoints = (levels[1:] + levels[:-1]) / 2
    values = np.arange(65536, dtype=np.uint16).view(np.int16)
    return order[np.searchsorted(midpoints, values)].astype(np.uint8)


_DECODE: dict[Codec, Samples] = {"PCMU": _decode_mu(), "PCMA": _decode_a()}
_ENCODE = {codec: _nearest(table) for codec, table in _DECODE.items()}


def encode(codec: Codec, samples: Samples) -> bytes:
    """Return one byte a sample."""
    return bytes(_ENCODE[codec][samples.view(np.uint16)].tobytes())


def decode(codec: Codec, data: bytes) -> Samples:
    """Return the samples of these bytes."""
    return _DECODE[codec][np.frombuffer(data, dtype=np.uint8)]
