"""How long a session lasts that nobody keeps alive (RFC 4028), as we agree to it. Pure."""

import re

from voxpria_sip.message import Request

_EXPIRES = re.compile(r"(\d{1,10})\s*(?:;.*)?")
_REFRESHER = re.compile(r";\s*refresher\s*=\s*(\w+)", re.I)


def agreed(request: Request) -> list[tuple[str, str]]:
    """Return what our 200 says of an INVITE's or UPDATE's wish: as long as it wants, kept alive by who sent it.

    Nothing where it has no wish, or wants us to keep it alive, which we don't: the session is then without a timer
    (section 9), and its other side may refresh it all the same.
    """
    wish = request.headers.get("Session-Expires") or ""
    expires, refresher = _EXPIRES.fullmatch(wish), _REFRESHER.search(wish)
    is_known = "timer" in (*request.headers.all("Supported"), *request.headers.all("Require"))
    if expires is None or not is_known or (refresher and refresher[1].lower() != "uac"):
        return []
    return [("Session-Expires", f"{expires[1]};refresher=uac"), ("Require", "timer")]
