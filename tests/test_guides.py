"""Guides and README can't lie: what they say to type is typed, in order, into one shell beside a running instance."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_ports
from tests.product import Product, until

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "docs" / "guides"
ORDER = (
    "1-first-trunk",
    "2-first-number",
    "3-webhooks",
    "4-going-live",
    "keys",
    "magic-numbers",
    "calls-out",
    "restore",
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_SECONDS = 300
RECEIVERS = {"python": ("receiver.py", "python3"), "javascript": ("receiver.js", "node")}


class Shell:
    """One bash, as somebody who follows the guides has it open."""

    def __init__(self, product: Product, folder: Path) -> None:
        self.folder = folder
        environment = {
            **os.environ,
            "VOXPRIA_DATA_DIR": str(product.data),
            "VOXPRIA_HTTP_PORT": str(product.http_port),
            "VOXPRIA_SIP_PORT": str(product.sip_port),
            "VOXPRIA_SIP_TLS_PORT": str(product.sip_tls_port),
        }
        self._bash = subprocess.Popen(
            ["bash", "-o", "pipefail"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def type(self, block: str) -> str:
        """Run a block and return what it printed; fail on the first command that fails."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        # an error ends the block, not the shell, whose variables the next block needs
        script = self.folder / "block"
        script.write_text("trap 'failed=1' ERR\nfailed=0\n" + block + "\ntrap - ERR\n")
        self._bash.stdin.write(f"source {script} </dev/null; echo; echo ==done $failed==\n")
        self._bash.stdin.flush()
        lines = []
        for line in self._bash.stdout:
            if match := re.fullmatch(r"==done (\d)==\n", line):
                assert match[1] == "0", f"{block}\n{''.join(lines)}"
                return "".join(lines)
            lines.append(line)
        pytest.fail("the shell ended: " + "".join(lines))

    def close(self) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.close()
        self._bash.wait(10)


class Receiver:
    """A receiver of webhooks as a guide shows it, run as it says."""

    def __init__(self, language: str, source: str, folder: Path) -> None:
        name, program = RECEIVERS[language]
        path = folder / name
        path.write_text(source)
        self.output = folder / f"{name}.out"
        binary = shutil.which(program)
        assert binary is not None, program
        with self.output.open("wb") as output:
            self._process = subprocess.Popen([binary, str(path)], stdout=output, stderr=subprocess.STDOUT)

    def has_verified(self) -> bool:
        assert "refused" not in self.output.read_text()
        return "verified" in self.output.read_text()

    def end(self) -> None:
        self._process.terminate()
        self._process.wait(10)


def blocks(product: Product, text: str, port: int = 9000) -> list[tuple[str, str]]:
    """The blocks of a text, with this instance's addresses in place of those of a default one."""
    text = text.replace("http://127.0.0.1:8000", product.url).replace("9000", str(port))
    return [(match[1], match[2]) for match in _BLOCK.finditer(text)]


@pytest.fixture
def product(another_folder: Path) -> Iterator[Product]:
    """An instance of its own, as the guides begin with one on which nothing was done yet."""
    with Product.started(another_folder) as running:
        yield running


def test_every_guide_is_tried() -> None:
    assert {path.stem for path in GUIDES.glob("*.md")} == set(ORDER)


@pytest.mark.timeout(1800)
def test_what_the_guides_say_works(product: Product, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    shell = Shell(product, tmp_path)
    printed: dict[str, str] = {}
    try:
        for guide in ORDER:
            there = blocks(product, (GUIDES / f"{guide}.md").read_text(), port)
            sources = {language: text for language, text in there if language in RECEIVERS}
            for language, block in there:
                if language != "sh":
                    continue
                printed[guide] = printed.get(guide, "") + shell.type(block)
                if "/test" in block and sources:
                    for name, source in sources.items():
                        receiver = Receiver(name, source, tmp_path)
                        until("the receiver takes webhooks", lambda: is_delivered(shell, block, receiver), _SECONDS)  # noqa: B023
                        receiver.end()
    finally:
        shell.close()
    for guide, text in printed.items():
        assert '"error":{' not in text, f"{guide}: {text}"
    doctors = json.loads(next(line for line in printed["1-first-trunk"].splitlines() if '"steps"' in line))
    assert {step["name"]: step["status"] for step in doctors["steps"]}["codecs"] == "ok"
    assert '"status":"active"' in printed["2-first-number"].replace(" ", "")
    assert '"completed"' in printed["2-first-number"]
    assert printed["keys"].count("HTTP/1.1 201") == 2
    assert printed["keys"].lower().count("idempotent-replayed: true") == 1
    assert "voxpria_requests_total" in printed["4-going-live"]


def test_the_first_call_of_the_readme_works(product: Product, tmp_path: Path) -> None:
    shell = Shell(product, tmp_path)
    text = (ROOT / "README.md").read_text().partition("## The first call")[2].partition("\n## ")[0]
    try:
        printed = "".join(shell.type(block) for language, block in blocks(product, text) if language == "sh")
        assert "answered; talking" in printed
        assert '"error":{' not in printed
        until("the call's record is complete", lambda: '"completed"' in shell.type('curl -s $API/calls -H "$AUTH"'))
    finally:
        shell.close()


def is_delivered(shell: Shell, block: str, receiver: Receiver) -> bool:
    """Send one more test event, and see whether it has come and been verified."""
    shell.type(block)
    return receiver.has_verified()
