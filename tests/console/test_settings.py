"""Settings: each one can be set, and a wrong one says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.settings import Settings, SettingsBroken, read_settings

OTHERS = Settings(
    kafka="broker:9092",
    store="rediss://store:6380/1",
    key_file=Path("/run/secrets/keys.toml"),
    profile="literal",
    replication=3,
    session_timeout_s=10.5,
    media_host="192.0.2.2",
    media_advertised="192.0.2.1",
    media_port=40_000,
    lines=8,
    log="json",
)


@pytest.mark.parametrize("settings", [Settings(), OTHERS], ids=["defaults", "others"])
def test_what_is_printed_can_be_set(settings: Settings) -> None:
    assert read_settings(dict(settings.rows())) == settings


def test_others_are_others() -> None:
    assert not set(Settings().rows()) & set(OTHERS.rows())


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("OTWAY_LINES", "many", "OTWAY_LINES: Expected `int`"),
        ("OTWAY_LOG", "xml", "OTWAY_LOG: Invalid enum value"),
        ("OTWAY_KAKFA", "broker:9092", "OTWAY_KAKFA: no such setting"),
    ],
)
def test_a_wrong_one_is_named(variable: str, value: str, told: str) -> None:
    with pytest.raises(SettingsBroken, match=told):
        read_settings({"HOME": "/root", variable: value})


def test_a_password_is_not_printed() -> None:
    settings = Settings(store="redis://kms:opensesame@store:6379/0")
    assert "opensesame" not in str(dict(settings.rows()))
