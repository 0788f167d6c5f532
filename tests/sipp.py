"""SIPp as an outside carrier."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCENARIOS = Path(__file__).parent / "scenarios"


@dataclass(frozen=True)
class Seen:
    """What the carrier saw of its call."""

    final_code: int
    messages: str


def place_call(folder: Path, sip_port: int, source: str, number: str, talk_ms: int = 1000) -> Seen:
    """Place one call from `source` with SIPp, talk, hang up; return what came back."""
    log = folder / "messages.log"
    subprocess.run(
        [
            "sipp",
            f"127.0.0.1:{sip_port}",
            *("-sf", str(SCENARIOS / "carrier_calls_and_hangs_up.xml")),
            *("-i", source, "-mi", source, "-s", number, "-d", str(talk_ms)),
            *("-m", "1", "-l", "1", "-timeout", "30s", "-timeout_error", "-nostdin"),
            *("-trace_msg", "-message_file", str(log)),
        ],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    messages = log.read_text(errors="replace")
    codes = [
        int(code) for code in re.findall(r"^SIP/2\.0 (\d{3}) [^\n]*\n(?:[^\n]+\n)*?CSeq: 1 INVITE", messages, re.M)
    ]
    finals = [code for code in codes if code >= 200]
    assert finals, messages
    return Seen(finals[0], messages)
