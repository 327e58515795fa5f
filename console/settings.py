"""Where the servers are and who this process is: the environment, read once, as one frozen value.

Every field is set by OTWAY_ and its name in capitals; an unknown OTWAY_ variable is an error, because a
misspelt one would silently be ignored. What the environment leaves open, a file may say: the set-up of a
cluster (compose.yaml) writes one for the operator, and `otway` takes it up in the directory of the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import quote, urlsplit

import msgspec
from msgspec import Meta

from protocol.limits import KEEP_S_MAX, LIFE_S
from protocol.names import Permit
from protocol.profile import PROFILES, Profile, admit
from protocol.secret import Secret
from storage.redis_store import RedisSettings
from topics.kafka_clients import KafkaSettings

PREFIX: Final = "OTWAY_"
SETTINGS_FILE: Final = Path("secrets/operator/settings.env")
CODEC_NAMES: Final = ("PCMU", "PCMA", "G722", "opus")
"""What a media engine can speak, by its RTP names; said here too, since not every installation has one."""
_LIFE_S_MIN: Final = 10  # below, a call would do little else than renew


class SettingsBroken(Exception):  # noqa: N818
    """A variable cannot be used; the message says which one and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a process on real servers."""

    kafka: str = "127.0.0.1:9092"
    """host:port of one or more brokers, separated by commas."""
    store: str = "redis://127.0.0.1:6379/0"
    """Redis or Valkey: redis://user:password@host:port/db, rediss:// for TLS."""
    user: str = ""
    """Who this process is to Kafka (SCRAM-SHA-512) and to the store; empty: servers that ask nobody."""
    password_file: Path | None = None
    """The user's password, the same for both, in a file."""
    ca_file: Path | None = None
    """The certificate (PEM) that vouches for both: TLS. Empty: no TLS."""
    key_file: Path = Path("secrets/keys.toml")
    """The key-encryption keys, which `otway keys init` makes; KMS and BSF need it."""
    directory: Path = Path("users.toml")
    """Who lives on which UE host: a users file, with or without keys; `otway call` looks people up in it."""
    profile: Literal["hardened", "literal"] = "hardened"
    """literal: the ten steps as first written; for the lab, with --lab."""
    deferred_days_max: Annotated[int, Meta(ge=0, le=KEEP_S_MAX // 86_400)] = 7
    """For so many days the KMS keeps the key of a message that was left, or less; 0: none may be left."""
    removed_may_return: bool = False
    """Whether the KMS lets who was put out of a conference join it again."""
    life_s: Annotated[int, Meta(ge=_LIFE_S_MIN, le=LIFE_S)] = LIFE_S
    """The KMS's keys of calls live so long; a call that goes on renews them before."""
    mailbox: str = ""
    """The mailbox (its public identity) that call control hands calls to which nobody takes; empty: none."""
    transcoder: str = ""
    """The transcoder that call control puts between two ends without a common codec; empty: none."""
    focus: str = ""
    """The focus that call control hands joins to, and that `otway conference` asks; empty: none."""
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
    """Calls and conferences at a time on one UE host; of a mailbox messages, of a focus members, of a
    transcoder legs, two for each call."""
    codecs: str = "PCMU"
    """What a UE host can speak, the first choice first: of PCMU, PCMA, G722, opus, separated by commas."""
    permits: str = "deferred"
    """What the users of a UE host consent to beyond the call itself: of conference, deferred, transcode,
    separated by commas; empty: nothing."""
    log: Literal["text", "json"] = "text"
    """The form of the log on standard error."""
    operations: str = ""
    """host:port where an agent answers /livez, /readyz and /metrics; empty: nowhere."""
    instance: str = ""
    """What this process is called in `otway status`; empty: the name of its machine and its number there."""

    @property
    def kafka_settings(self) -> KafkaSettings:
        """For the bus. Raises SettingsBroken."""
        return KafkaSettings(
            bootstrap=self.kafka,
            session_timeout_s=self.session_timeout_s,
            user=self.user,
            password=self._password(),
            ca_file=self.ca_file,
        )

    @property
    def redis_settings(self) -> RedisSettings:
        """For the store. Raises SettingsBroken."""
        url = self.store
        if self.user and "@" not in url:
            scheme, _, place = url.partition("://")
            secret = self._password()
            password = quote(secret.reveal().decode(), safe="") if secret else ""
            url = f"{scheme}://{self.user}:{password}@{place}"
        if self.ca_file is not None:
            joint = "&" if urlsplit(url).query else "?"
            url = f"rediss://{url.partition('://')[2]}{joint}ssl_ca_certs={self.ca_file}"
        return _redis(url)

    @property
    def codec_names(self) -> tuple[str, ...]:
        """The codecs in their order. Raises SettingsBroken."""
        names = _listed(self.codecs)
        if not names:
            raise SettingsBroken(f"{PREFIX}CODECS: a UE host needs one: of {', '.join(CODEC_NAMES)}")
        for name in names:
            if name not in CODEC_NAMES:
                raise SettingsBroken(f"{PREFIX}CODECS: {name!r} is none of {', '.join(CODEC_NAMES)}")
        return names

    @property
    def permitted(self) -> tuple[Permit, ...]:
        """The permits, sorted. Raises SettingsBroken."""
        names = _listed(self.permits)
        for name in names:
            if name not in list(Permit):
                raise SettingsBroken(f"{PREFIX}PERMITS: {name!r} is none of {', '.join(sorted(Permit))}")
        return tuple(sorted(Permit(name) for name in names))

    def admitted(self, *, lab: bool) -> Profile:
        """The profile, where it may run. Raises LabOnly."""
        return admit(PROFILES[self.profile], lab=lab)

    def rows(self) -> Iterator[tuple[str, str]]:
        """Variable and value, without secrets. Raises SettingsBroken."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "store":
                value = _redis(self.store).place
            yield PREFIX + field.name.upper(), "" if value is None else str(value)

    def _password(self) -> Secret | None:
        if self.password_file is None:
            return None
        try:
            return Secret(self.password_file.read_bytes().strip())
        except OSError as error:
            raise SettingsBroken(f"{PREFIX}PASSWORD_FILE: {self.password_file}: {error.strerror}") from None


def _listed(text: str) -> tuple[str, ...]:
    """The names in a list with commas, each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _redis(url: str) -> RedisSettings:
    """Raises SettingsBroken."""
    try:
        return RedisSettings(url=url)
    except ValueError as error:
        raise SettingsBroken(f"{PREFIX}STORE: {error}") from None


def read_settings(environment: Mapping[str, str], file: Path | None = None) -> Settings:
    """file: lines of NAME=value for what the environment leaves open; it need not be there.

    Raises SettingsBroken.
    """
    given = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in {**_lines(file), **environment}.items()
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
    settings = _converted(given)
    _ = settings.codec_names, settings.permitted  # a misspelt one is told now, not when it would be used
    return settings


def _lines(file: Path | None) -> dict[str, str]:
    """Raises SettingsBroken."""
    if file is None or not file.exists():
        return {}
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsBroken(f"{file}: {error}") from None
    named = (line.partition("=") for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in named}


def _converted(given: Mapping[str, str]) -> Settings:
    """Raises msgspec.ValidationError."""
    optional = {"password_file", "ca_file"}
    said = {name: value for name, value in given.items() if value or name not in optional}
    return msgspec.convert(said, Settings, strict=False, dec_hook=lambda kind, value: kind(value))
