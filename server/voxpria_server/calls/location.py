"""Where a number is from, by the number plan. The data takes half a second to load, once, in a thread of its own."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

_THREAD = ThreadPoolExecutor(max_workers=1, thread_name_prefix="geocoder")
_loaded = threading.Event()


def is_at_hand() -> bool:
    """Tell whether `look_up` answers at once; if not, begin to load what it needs."""
    if not _loaded.is_set():
        _THREAD.submit(_load)
    return _loaded.is_set()


async def location_of(number: str) -> str | None:
    """Return what `look_up` does, however long it takes."""
    return await asyncio.get_running_loop().run_in_executor(_THREAD, look_up, number)


@lru_cache(maxsize=10_000)
def look_up(number: str) -> str | None:
    """Return the area of an E.164 number in English, as `Denver, CO`; None for any other text, or if there is none."""
    _load()
    import phonenumbers  # noqa: PLC0415
    from phonenumbers import geocoder  # noqa: PLC0415

    if not number.startswith("+"):
        return None
    try:
        parsed = phonenumbers.parse(number)
    except phonenumbers.NumberParseException:
        return None
    return geocoder.description_for_number(parsed, "en") or None


def _load() -> None:
    if not _loaded.is_set():
        from phonenumbers import geocoder  # noqa: F401, PLC0415  (loads the whole plan)

        _loaded.set()
