"""The kit's pure parts."""

import os
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxpria_server.errors import InvalidNumberError
from voxpria_server.kit.clock import iso
from voxpria_server.kit.ids import is_id, new_id
from voxpria_server.kit.logs import get_logger
from voxpria_server.kit.sealing import SealBrokenError, Sealer, load_sealer
from voxpria_server.numbers.service import check_e164
from voxpria_server.providers.hosts import way_to
from voxpria_server.settings import Settings

pytestmark = pytest.mark.unit


def test_ids_are_well_formed_and_sort_in_the_order_of_their_making():
    ids = [new_id("call") for _ in range(5000)]
    assert ids == sorted(set(ids))
    assert all(is_id(text, "call") for text in ids)
    assert not is_id(ids[0], "trunk")


def test_an_id_is_a_uuid_of_version_7():
    number = 0
    for character in new_id("call").removeprefix("call_"):
        number = number << 5 | "0123456789abcdefghjkmnpqrstvwxyz".index(character)
    assert number < 1 << 128
    assert (number >> 76 & 0xF, number >> 62 & 0b11) == (7, 0b10)
    assert abs((number >> 80) / 1000 - datetime.now(UTC).timestamp()) < 5


def test_times_are_utc_to_the_second():
    assert iso(datetime(2024, 1, 2, 3, 4, 5, 999999, UTC)) == "2024-01-02T03:04:05Z"
    assert iso(datetime(2024, 1, 2, 3, tzinfo=timezone(timedelta(hours=2)))) == "2024-01-02T01:00:00Z"
    with pytest.raises(ValueError, match="zone"):
        iso(datetime(2024, 1, 2))  # noqa: DTZ001


@given(st.binary(max_size=500), st.text(max_size=40))
def test_what_is_sealed_opens_for_its_row_only(plaintext, row):
    sealer = Sealer([b"k" * 32])
    sealed = sealer.seal(plaintext, row)
    assert sealer.open(sealed, row) == plaintext
    with pytest.raises(SealBrokenError):
        sealer.open(sealed, row + "x")
    with pytest.raises(SealBrokenError):
        sealer.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), row)


@given(st.binary(max_size=60))
def test_no_bytes_open_by_chance(data):
    with pytest.raises(SealBrokenError):
        Sealer([b"k" * 32]).open(data, "row")


def test_keys_rotate(tmp_path):
    old, new = os.urandom(32), os.urandom(32)
    sealed = Sealer([old]).seal(b"secret", "row")
    both = Sealer([new, old])
    assert both.open(sealed, "row") == b"secret"
    with pytest.raises(SealBrokenError):
        Sealer([new]).open(both.seal(b"x", "row")[::-1], "row")
    with pytest.raises(SealBrokenError):
        Sealer([old]).open(both.seal(b"x", "row"), "row")
    (tmp_path / "key").write_text("not base64!")
    with pytest.raises(ValueError, match=r".+"):
        load_sealer(tmp_path / "key")


@given(st.text(max_size=20))
def test_any_text_is_a_number_or_refused(text):
    with suppress(InvalidNumberError):
        assert check_e164(text, "live") == text


def test_the_sandboxs_numbers_are_for_test_mode():
    assert check_e164("+15555551234", "test") == "+15555551234"
    assert check_e164("+12125551234", "live") == "+12125551234"


def settings(**changes) -> Settings:
    return Settings(sandbox=True, sip_port=7000, sip_tls_port=7001, **changes)


@pytest.mark.parametrize(
    ("mode", "server", "transport", "next_hop", "is_barred"),
    [
        ("live", "sip.example.com", "udp", None, False),
        ("live", "sip.rtc.elevenlabs.io", "tls", None, False),
        ("test", "sip.rtc.elevenlabs.io", "tls", ("127.0.0.2", 7001), False),
        ("test", "sip.test.voxpria.com", "udp", ("127.0.0.2", 7000), False),
        ("test", "sip-static.rtc.elevenlabs.io", "tcp", ("127.0.0.2", 7000), False),
        ("test", "sip.rtc.eu.residency.elevenlabs.io", "tls", ("127.0.0.2", 7001), False),
        ("test", "sip-static.rtc.sg.residency.elevenlabs.io", "tls", ("127.0.0.2", 7001), False),
        ("test", "sip-eu.api.openai.com", "tls", ("127.0.0.2", 7001), False),
        ("test", "sip.rtc.eu.residency.elevenlabs.io.example.com", "tls", None, True),
        ("test", "127.0.0.9", "udp", None, False),
        ("test", "::1", "udp", None, False),
        ("test", "10.0.0.1", "udp", None, True),
        ("test", "127.0.0.1.example.com", "udp", None, True),
        ("test", "evil.sip.test.voxpria.com", "udp", None, True),
    ],
)
def test_test_mode_stays_on_this_machine(mode, server, transport, next_hop, is_barred):
    way = way_to(settings(), mode, server, transport)
    assert (way.next_hop, way.barred is not None) == (next_hop, is_barred)


def test_without_sandbox_a_provider_is_nowhere_in_test_mode():
    way = way_to(Settings(sandbox=False), "test", "sip.rtc.elevenlabs.io", "tls")
    assert "sandbox is off" in way.barred


def test_settings_derive_what_is_not_said(tmp_path):
    derived = Settings(data_dir=tmp_path, http_port=8123)
    assert derived.public_url == "http://127.0.0.1:8123"
    assert derived.run_dir == tmp_path / "run"
    assert derived.database_url.get_secret_value() == f"postgresql://voxpria@/voxpria?host={tmp_path}/run/postgres"
    assert "postgresql" not in repr(derived)


def test_every_setting_says_what_it_is():
    assert all(field.description for field in Settings.model_fields.values())


def test_a_log_on_a_full_disk_loses_its_lines_and_nothing_else(monkeypatch):
    descriptor = os.open("/dev/full", os.O_WRONLY)
    full = open(descriptor, "w", buffering=1, closefd=False)  # noqa: SIM115  (as a process's stderr is)
    monkeypatch.setattr(sys, "stderr", full)
    for _ in range(1000):
        get_logger("test").error("no room", text="x" * 100)
    monkeypatch.undo()
    with suppress(OSError):
        full.close()
    os.close(descriptor)
