"""Settings: each one can be set, and a wrong one says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.hosting.roles import NETWORK
from console.settings import CODEC_NAMES, Settings, SettingsBroken, read_settings
from media.codec import CODECS
from protocol.checks import Check, RefusalCode
from protocol.names import Permit
from protocol.profile import HARDENED
from protocol.secret import Secret
from tests.agents.chair import Chair, join_of, refuses, responses
from tests.agents.scene import NOW, Stage, Town, deposited, expect
from topics.messages import RemoveChange

OTHERS = Settings(
    kafka="broker:9092",
    store="rediss://store:6380/1",
    user="kms",
    password_file=Path("/dev/null"),
    ca_file=Path("/run/secrets/ca.pem"),
    key_file=Path("/run/secrets/keys.toml"),
    directory=Path("/run/secrets/directory.toml"),
    profile="literal",
    deferred_days_max=30,
    removed_may_return=True,
    life_s=60,
    mailbox="sip:mailbox@ims.example",
    transcoder="sip:transcoder@ims.example",
    focus="sip:conference@ims.example",
    replication=3,
    session_timeout_s=10.5,
    media_host="192.0.2.2",
    media_advertised="192.0.2.1",
    media_port=40_000,
    lines=8,
    codecs="opus,G722",
    permits="",
    log="json",
    operations="127.0.0.1:9600",
    instance="kms-1",
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
        ("OTWAY_DEFERRED_DAYS_MAX", "31", "OTWAY_DEFERRED_DAYS_MAX: Expected `int` <= 30"),
        ("OTWAY_DEFERRED_DAYS_MAX", "-1", "OTWAY_DEFERRED_DAYS_MAX: Expected `int` >= 0"),
        ("OTWAY_REMOVED_MAY_RETURN", "perhaps", "OTWAY_REMOVED_MAY_RETURN: Expected `bool`"),
        ("OTWAY_LIFE_S", "9", "OTWAY_LIFE_S: Expected `int` >= 10"),
        ("OTWAY_LIFE_S", "3601", "OTWAY_LIFE_S: Expected `int` <= 3600"),
        ("OTWAY_CODECS", "PCMU,speex", "OTWAY_CODECS: 'speex' is none of PCMU, PCMA, G722, opus"),
        ("OTWAY_CODECS", "pcmu", "OTWAY_CODECS: 'pcmu' is none of"),
        ("OTWAY_CODECS", " , ", "OTWAY_CODECS: a UE host needs one"),
        ("OTWAY_PERMITS", "defered", "OTWAY_PERMITS: 'defered' is none of conference, deferred, transcode"),
        ("OTWAY_KAKFA", "broker:9092", "OTWAY_KAKFA: no such setting"),
    ],
)
def test_a_wrong_one_is_named(variable: str, value: str, told: str) -> None:
    with pytest.raises(SettingsBroken, match=told):
        read_settings({"HOME": "/root", variable: value})


def test_codecs_keep_their_order_and_permits_are_sorted() -> None:
    given = {"OTWAY_CODECS": "opus, PCMU,opus", "OTWAY_PERMITS": "transcode,deferred"}
    settings = read_settings(given)
    assert settings.codec_names == ("opus", "PCMU")
    assert settings.permitted == (Permit.DEFERRED, Permit.TRANSCODE)
    assert read_settings({"OTWAY_PERMITS": ""}).permitted == ()
    assert (Settings().codec_names, Settings().permitted) == (("PCMU",), (Permit.DEFERRED,))


def test_the_codecs_are_those_of_the_media_engine() -> None:
    assert set(CODEC_NAMES) == set(CODECS)


@pytest.mark.parametrize("days", [0, 1, 2])
def test_or_14_a_kms_keeps_messages_as_long_as_its_operator_wants(days: int) -> None:
    town = Town()
    kms = Stage(NETWORK["kms"][0].make(Settings(deferred_days_max=days), HARDENED))
    kms.records = town.records
    deposit = town.deposit()
    decision = kms.give(deposit)
    if days == 0:
        expect(decision, Check.OR_14, RefusalCode.NOT_PERMITTED, sealed=True)
    else:
        assert town.left(deposit, deposited(decision))[0].not_after == NOW + days * 86_400


@pytest.mark.parametrize("may", [False, True])
def test_or_14_who_was_put_out_comes_back_where_the_operator_wants_it(*, may: bool) -> None:
    chair = Chair()
    chair.agent = NETWORK["kms"][0].make(Settings(removed_may_return=may), HARDENED)
    chair.epoch(RemoveChange(chair.guest("ben").identity))
    again = chair.asks(join_of(chair.guest("ben")), epoch=2)
    if may:
        responses(chair.give(again))
    else:
        refuses(chair, again, Check.OR_14, RefusalCode.NOT_PERMITTED)


def test_a_file_says_what_the_environment_leaves_open(tmp_path: Path) -> None:
    file = tmp_path / "settings.env"
    file.write_text("# made by the set-up\nOTWAY_KAFKA=broker:9092\nOTWAY_LINES=8\n")
    assert read_settings({"OTWAY_LINES": "2"}, file) == Settings(kafka="broker:9092", lines=2)
    assert read_settings({}, tmp_path / "none.env") == Settings()


@pytest.mark.parametrize("ca_file", [None, "/run/secrets/ca.pem"])
def test_one_user_and_password_for_bus_and_store(tmp_path: Path, ca_file: str | None) -> None:
    (tmp_path / "password").write_text("open@sesame\n")
    given = {"OTWAY_USER": "kms", "OTWAY_PASSWORD_FILE": str(tmp_path / "password")}
    settings = read_settings({**given, **({"OTWAY_CA_FILE": ca_file} if ca_file else {})})
    scheme, options = ("rediss", f"?ssl_ca_certs={ca_file}") if ca_file else ("redis", "")
    assert settings.redis_settings.url == f"{scheme}://kms:open%40sesame@127.0.0.1:6379/0{options}"
    assert settings.kafka_settings.password == Secret(b"open@sesame")
    for shown in (settings, settings.redis_settings, settings.kafka_settings, dict(settings.rows())):
        assert "sesame" not in repr(shown)


def test_a_password_that_is_not_there_is_told() -> None:
    settings = read_settings({"OTWAY_USER": "kms", "OTWAY_PASSWORD_FILE": "/nowhere"})
    with pytest.raises(SettingsBroken, match="OTWAY_PASSWORD_FILE: /nowhere"):
        _ = settings.kafka_settings


def test_a_password_is_not_printed() -> None:
    settings = Settings(store="redis://kms:opensesame@store:6379/0")
    assert "opensesame" not in str(dict(settings.rows()))
