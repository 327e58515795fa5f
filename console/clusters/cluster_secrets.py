"""The secrets of a cluster, made before anything of it runs: `otway cluster secrets`.

    secrets/<who>/        what <who> is given, and nobody else; a container mounts its own directory only
      password            each agent, ue-<host>, operator, auditor: for Kafka and the store
      ca.pem              whom to believe
      users.toml          the handsets of a UE host, or the one network function, with their keys
    secrets/kafka-<n>/    certificate and key of a broker           secrets/valkey/   the same; access list
    secrets/keys/         the key-encryption keys, for KMS, BSF and the set-up
    secrets/conference/   also key-encryption keys of its own: its records have the keys of conferences
    secrets/setup/        a certificate that the brokers obey, all passwords, all subscribers
    secrets/operator/     who lives where, without keys; the settings of `otway` on this machine

What is there is left as it is, so that it may run before each start. The certification authority's key is in
no file: it ends with this process, and to change one certificate all are made anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chaos.lab import DOMAIN, FOCUS, draw_crowd, draw_functions, draw_town
from console.clusters.certificates import Authority
from console.settings import SETTINGS_FILE
from protocol.names import Owner
from protocol.sealing import Random
from protocol.secret import Secret
from storage import key_file
from storage.access import STORE_USERS, access_list
from storage.users_file import Device, read_users, ue_hosts, write_directory, write_users
from topics.access import principals, ue_principal

_KAFKA_UID: Final = 1000
_VALKEY_UID: Final = 999
_OTWAY_UID: Final = 10_001
_PASSWORD_OCTETS: Final = 24
_FUNCTIONS: Final = {"voicemail": Owner.MAILBOX, "transcoder": Owner.TRANSCODER, "conference": Owner.FOCUS}
"""Whose users file has one network function, and which."""
_KEEPERS: Final = ("keys", "conference")  # where a key file is
CROWD_HOST: Final = "load"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsWish:
    """What a cluster is made of."""

    directory: Path
    users: Sequence[str]
    """Names of users with one handset each, on a UE host of the same name; `carol@bob`: on bob's."""
    crowd: int = 0
    """So many more handsets on the UE host `load`, for load."""
    brokers: int = 3
    kafka: str
    """The brokers, as the operator's own machine reaches them: host:port, separated by commas."""
    store: str
    """The store, likewise: redis://host:port/db."""
    tls: bool = False
    """Both speak TLS."""
    renew: bool = False
    """Make all certificates anew; everything must be restarted then."""


def make_secrets(wish: SecretsWish, *, now: int, random: Random, say: Callable[[str], None]) -> None:
    """Make what is not there. say: takes a line for each thing that was made.

    Raises OSError, KeyFileBroken, UsersBroken.
    """
    _Maker(wish, now, random, say).make()


class _Maker:
    def __init__(self, wish: SecretsWish, now: int, random: Random, say: Callable[[str], None]) -> None:
        self._wish = wish
        self._now = now
        self._random = random
        self._say = say
        self._root = wish.directory
        self._owner = (wish.directory.stat().st_uid, wish.directory.stat().st_gid)

    def make(self) -> None:
        """In the order in which one needs the other."""
        devices = self._users()
        hosts = ue_hosts(devices)
        everybody = principals(hosts)
        passwords = {who: self._password(who) for who in dict.fromkeys((*everybody, *STORE_USERS))}
        for who in everybody:
            self._write(f"setup/passwords/{who}", passwords[who].reveal(), _OTWAY_UID)
        users = {who: passwords[who] for who in STORE_USERS}
        self._write("valkey/users.acl", access_list(users).encode(), _VALKEY_UID)
        self._certificates(everybody)
        self._keys()
        for host in hosts:
            own = tuple(device for device in devices if device.host == host)
            path = f"{ue_principal(host)}/users.toml"
            self._write(path, write_users(own).encode(), _OTWAY_UID)
        for who, owner in _FUNCTIONS.items():
            own = tuple(device for device in devices if device.owner is owner)
            self._write(f"{who}/users.toml", write_users(own).encode(), _OTWAY_UID)
        self._write("operator/directory.toml", write_directory(devices).encode(), None)
        self._write("operator/settings.env", self._operators_settings().encode(), None)

    def _operators_settings(self) -> str:
        """Paths are as seen from the directory of the cluster (console/settings.py)."""
        own = SETTINGS_FILE.parent
        lines = [
            "# Written by `otway cluster secrets`: how `otway` on this machine reaches the cluster.",
            f"OTWAY_KAFKA={self._wish.kafka}",
            f"OTWAY_STORE={self._wish.store}",
            "OTWAY_USER=operator",
            f"OTWAY_PASSWORD_FILE={own / 'password'}",
            f"OTWAY_DIRECTORY={own / 'directory.toml'}",
            f"OTWAY_FOCUS={FOCUS}",
            *([f"OTWAY_CA_FILE={own / 'ca.pem'}"] if self._wish.tls else []),
        ]
        return "\n".join(lines) + "\n"

    def _users(self) -> tuple[Device, ...]:
        """Who is there already, and who is wanted besides."""
        path = self._root / "setup" / "users.toml"
        known = read_users(path) if path.exists() else ()
        wanted = (
            *draw_town(self._wish.users, self._random),
            *draw_crowd(self._wish.crowd, CROWD_HOST, self._random),
            *draw_functions(self._random),
        )
        impis = {device.impi for device in known}
        new = tuple(device for device in wanted if device.impi not in impis)
        if new:
            self._write("setup/users.toml", write_users((*known, *new)).encode(), _OTWAY_UID)
            self._say(f"{len(new)} subscribers of {DOMAIN}")
        return (*known, *new)

    def _password(self, who: str) -> Secret:
        path = self._root / who / "password"
        if not path.exists():
            uid = None if who in {"operator", "auditor"} else _OTWAY_UID
            self._write(f"{who}/password", self._random(_PASSWORD_OCTETS).hex().encode(), uid)
            self._say(f"a password for {who}")
        return Secret(path.read_bytes())

    def _certificates(self, everybody: Sequence[str]) -> None:
        authority_file = self._root / "operator" / "ca.pem"
        brokers = [f"kafka-{number}" for number in range(1, self._wish.brokers + 1)]
        whole = all((self._root / broker / "keystore.pem").exists() for broker in brokers)
        if authority_file.exists() and whole and not self._wish.renew:
            authority = authority_file.read_bytes()
        else:
            authority_file.unlink(missing_ok=True)  # written last: while it is missing, nothing is whole
            maker = Authority("otway", self._now)
            authority = maker.certificate
            for broker in brokers:
                issued = maker.issue(broker, names=(broker, "localhost"), client=True)
                self._write(f"{broker}/keystore.pem", issued.key + issued.certificate, _KAFKA_UID)
            issued = maker.issue("valkey", names=("valkey", "localhost"), client=False)
            self._write("valkey/server.key", issued.key, _VALKEY_UID)
            self._write("valkey/server.crt", issued.certificate, _VALKEY_UID)
            issued = maker.issue("setup", names=(), client=True)
            self._write("setup/client.key", issued.key, _OTWAY_UID)
            self._write("setup/client.crt", issued.certificate, _OTWAY_UID)
            self._say(f"a certification authority, and certificates for {', '.join(brokers)}, valkey, setup")
        for broker in brokers:
            self._write(f"{broker}/ca.pem", authority, _KAFKA_UID)
        self._write("valkey/ca.pem", authority, _VALKEY_UID)
        for who in (*(each for each in everybody if each != "operator"), "setup", "operator"):
            uid = None if who in {"operator", "auditor"} else _OTWAY_UID
            self._write(f"{who}/ca.pem", authority, uid)

    def _keys(self) -> None:
        for path in (self._root / who / "keys.toml" for who in _KEEPERS):
            if not path.exists():
                self._folder(path.parent, _OTWAY_UID)
                key = key_file.create(path, self._random, self._now)
                self._own(path, _OTWAY_UID)
                self._say(f"the key-encryption key {key.id.hex()} in {path.parent.name}/")

    def _write(self, name: str, octets: bytes, uid: int | None) -> None:
        """A file that its owner alone reads; whole or not at all. uid None: whose the directory is."""
        path = self._root / name
        if path.exists() and path.read_bytes() == octets:
            return
        self._folder(path.parent, uid)
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
            file.write(octets)
        self._own(beside, uid)
        beside.replace(path)

    def _folder(self, path: Path, uid: int | None) -> None:
        """Docker makes the directories that it mounts, for root and open to all: they are taken over."""
        for folder in (*reversed(path.parents), path):
            if self._root in folder.parents:
                folder.mkdir(exist_ok=True)
                folder.chmod(0o700)
                self._own(folder, uid)

    def _own(self, path: Path, uid: int | None) -> None:
        """Give it to its reader, where this process may."""
        owner, group = self._owner if uid is None else (uid, uid)
        if os.geteuid() == 0:
            shutil.chown(path, owner, group)
