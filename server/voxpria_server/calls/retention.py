"""What is kept of calls beside the database, and for how long. An object's age is that of its call, by the id."""

from collections.abc import AsyncIterator
from datetime import datetime

import obstore
from obstore.store import ObjectStore

from voxpria_server.kit.ids import is_id, made_at

RECORDING, TRACE = ".mp3", ".trace.gz"
_FOLDER_LENGTH = 5


def path(call_id: str, kind: str) -> str:
    """Return where an object of a call lies. The first characters of an id are its time: a folder holds nine hours."""
    return f"{call_id.removeprefix('call_')[:_FOLDER_LENGTH]}/{call_id}{kind}"


async def older_than(store: ObjectStore, before: datetime, kind: str) -> AsyncIterator[str]:
    """Give the ids of calls from before a time that have an object of this kind, oldest folder first.

    Only folders that can hold one are looked into, so what is young costs nothing.
    """
    for folder in sorted((await obstore.list_with_delimiter_async(store))["common_prefixes"]):
        if not _may_hold(folder, before):
            continue
        for item in (await obstore.list_with_delimiter_async(store, folder))["objects"]:
            call_id = item["path"].rpartition("/")[2].removesuffix(kind)
            if item["path"].endswith(kind) and is_id(call_id, "call") and made_at(call_id) < before:
                yield call_id


def _may_hold(folder: str, before: datetime) -> bool:
    try:
        return len(folder) == _FOLDER_LENGTH and made_at(f"call_{folder}") < before
    except (ValueError, OverflowError):
        return False  # not a folder of ours
