"""What is looked at before anything starts, and the embedded PostgreSQL."""

import contextlib
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from voxpria_launcher import postgres, secrets, summary
from voxpria_launcher.ports import needed, problems
from voxpria_launcher.settings import Settings

from tests.ports import free_port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    ports = {"http_port": free_port(), "sip_port": free_port(), "sip_tls_port": free_port()}
    return Settings(data_dir=tmp_path / "data", run_dir=None, database_url=None, **ports)


@pytest.mark.unit
def test_every_setting_is_documented_and_reaches_the_parts(settings: Settings) -> None:
    assert all(field.description for field in Settings.model_fields.values())
    both = {"sip_address_v6": "2001:db8::1", "sip_name": "edge.example"}
    environment = settings.model_copy(update=both).environment()
    assert all(f"VOXPRIA_{name.upper()}" in environment for name in Settings.model_fields)
    assert "VOXPRIA_SIP_ADDRESS_V6" not in settings.environment()  # the edge would take a word for an address


@pytest.mark.unit
def test_ipv6_is_looked_at_before_the_start_and_media_follows_it(settings: Settings) -> None:
    on_both = settings.model_copy(update={"sip_address_v6": "::1"})
    assert sum(port.address == "::1" for port in needed(on_both)) == 3
    assert on_both.environment()["VOXPRIA_MEDIA_ADDRESS_V6"] == "::1"
    other = on_both.model_copy(update={"media_address_v6": "2001:db8::2"})
    assert other.environment()["VOXPRIA_MEDIA_ADDRESS_V6"] == "2001:db8::2"


@pytest.mark.unit
def test_a_long_data_folder_gets_a_short_run_folder() -> None:
    assert Settings(data_dir=Path("/short")).run == Path("/short/run")
    long = Settings(data_dir=Path("/" + "long" * 30)).run
    assert len(str(long)) < 60
    assert long != Settings(data_dir=Path("/" + "long" * 31)).run


@pytest.mark.unit
def test_instances_on_loopback_share_no_media_address() -> None:
    assert Settings(sip_port=5060).media == "127.1.19.196"
    assert Settings(sip_port=5060).media != Settings(sip_port=5061).media
    assert Settings(sip_address="192.0.2.1").media == "192.0.2.1"
    assert Settings(media_address="192.0.2.2").environment()["VOXPRIA_MEDIA_ADDRESS"] == "192.0.2.2"


@pytest.mark.unit
def test_an_edge_of_both_families_is_told_that_it_should_have_a_name(tmp_path: Path) -> None:
    both = Settings(data_dir=tmp_path, sip_address_v6="2001:db8::1")
    assert "VOXPRIA_SIP_NAME" in summary.of(both)
    for other in (both.model_copy(update={"sip_name": "edge.example"}), Settings(data_dir=tmp_path)):
        assert "VOXPRIA_SIP_NAME" not in summary.of(other)


@pytest.mark.unit
def test_without_the_sandbox_its_ports_and_key_are_not_there(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, sandbox=False)
    assert not any("sandbox" in port.what for port in needed(settings))
    assert "vox_sk_test" not in summary.of(settings)


def test_a_taken_port_is_named_with_its_holder_and_its_setting(settings: Settings) -> None:
    assert problems(settings) == []
    with socket.socket() as holder:
        holder.bind((settings.sip_address, settings.sip_tls_port))
        holder.listen()
        (problem,) = problems(settings)
    assert f"{settings.sip_address}:{settings.sip_tls_port}" in problem
    assert "VOXPRIA_SIP_TLS_PORT" in problem
    assert f"(pid {os.getpid()})" in problem


def test_secrets_are_made_once_and_are_their_owners_alone(tmp_path: Path) -> None:
    secrets.ensure(tmp_path)
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(made) == {"edge_token", "master_key"}
    assert all(stat.S_IMODE((tmp_path / "secrets" / name).stat().st_mode) == 0o600 for name in made)
    secrets.ensure(tmp_path)
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made


@contextlib.contextmanager
def serving(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """A PostgreSQL that answers; ended as a crash ends it."""
    process = subprocess.Popen(postgres.prepare(settings), stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 20
        while ask(settings, "SELECT 1") != "1":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def ask(settings: Settings, sql: str) -> str:
    command = [postgres.binary("psql"), "-h", str(settings.run / "postgres"), "-U", "voxpria", "-tAc", sql]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False).stdout.strip()


def test_the_embedded_database_survives_a_crash_and_opens_no_folder(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    settings = Settings(data_dir=closed / "data")
    with serving(settings) as process:
        assert ask(settings, "CREATE TABLE t AS SELECT 7 AS n") == "SELECT 1"
        assert psutil.Process(process.pid).uids().effective != 0
        assert stat.S_IMODE((settings.run / "postgres").stat().st_mode) == 0o700
    with serving(settings):
        assert ask(settings, "SELECT n FROM t") == "7"
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
