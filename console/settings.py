"""Where the servers are and who this process is: the environment, read once, as one frozen value.

Every field is set by OTWAY_ and its name in capitals; an unknown OTWAY_ variable is an error, because a
misspelt one would silently be ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final, Literal

import msgspec

from protocol.profile import PROFILES, Profile, admit
from storage.redis_store import RedisSettings
from topics.kafka import KafkaSettings

PREFIX: Final = "OTWAY_"


class SettingsBroken(Exception):  # noqa: N818
    """A variable cannot be used; the message says which one and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a process on real servers."""

    kafka: str = "127.0.0.1:9092"
    """host:port of one or more brokers, separated by commas."""
    store: str = "redis://127.0.0.1:6379/0"
    """Redis or Valkey: redis://user:password@host:port/db, rediss:// for TLS."""
    key_file: Path = Path("secrets/keys.toml")
    """The key-encryption keys, which `otway keys init` makes; KMS and BSF need it."""
    profile: Literal["hardened", "literal"] = "hardened"
    """literal: the ten steps as first written; for the lab, with --lab."""
    replication: int = 1
    """On how many brokers `otway topics create` keeps each topic."""
    session_timeout_s: float = 6.0
    """A process that was killed loses its partitions after so long; a broker's default least is 6 s."""
    media_host: str = "127.0.0.1"
    """The address that a UE host's RTP sockets are bound to."""
    media_advertised: str = ""
    """What peers are told instead, for instance behind 0.0.0.0."""
    media_port: int = 0
    """The first RTP port, one for each line follows; 0: any free ones."""
    lines: int = 4
    """Calls at a time on one UE host."""
    log: Literal["text", "json"] = "text"
    """The form of the log on standard error."""

    @property
    def kafka_settings(self) -> KafkaSettings:
        """For the bus."""
        return KafkaSettings(bootstrap=self.kafka, session_timeout_s=self.session_timeout_s)

    @property
    def redis_settings(self) -> RedisSettings:
        """For the store. Raises SettingsBroken."""
        try:
            return RedisSettings(url=self.store)
        except ValueError as error:
            raise SettingsBroken(f"{PREFIX}STORE: {error}") from None

    def admitted(self, *, lab: bool) -> Profile:
        """The profile, where it may run. Raises LabOnly."""
        return admit(PROFILES[self.profile], lab=lab)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Variable and value, without secrets."""
        for field in fields(self):
            value = self.redis_settings.place if field.name == "store" else getattr(self, field.name)
            yield PREFIX + field.name.upper(), str(value)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """Raises SettingsBroken."""
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX)
    }
    known = {field.name for field in fields(Settings)}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise SettingsBroken(f"{PREFIX}{unknown[0].upper()}: no such setting; `otway doctor` lists them")
    for name, value in given.items():
        try:
            _converted({name: value})
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at ")[0]
            raise SettingsBroken(f"{PREFIX}{name.upper()}: {reason}") from None
    return _converted(given)


def _converted(given: Mapping[str, str]) -> Settings:
    """Raises msgspec.ValidationError."""
    return msgspec.convert(given, Settings, strict=False, dec_hook=lambda kind, value: kind(value))
