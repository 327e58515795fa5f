"""What a cluster needs before agents may start, done by one that the brokers obey: `otway cluster setup`.

    topics          those of the catalogue that are not there; the settings of all
    access lists    exactly the rights of topics/access.py: what is missing is given, what is more is taken
    passwords       of every principal (SCRAM-SHA-512), then a login at each broker
    subscribers     into the store

It may run again at any time: before each start it does, and after a user was added.
"""

# pyright: reportPrivateImportUsage=false, reportArgumentType=false
# (confluent-kafka's annotations export nothing, and refuse None where its documentation asks for it)

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from protocol.secret import Secret
from topics.access import Operation, Resource, Right, principals, rights
from topics.bus import BusRefused, BusUnavailable
from topics.catalogue import catalogue
from topics.kafka_admin import topic_settings
from topics.kafka_clients import KafkaSettings, started

_WITHIN_S: Final = 30.0
_LOGIN_WITHIN_S: Final = 30.0
_LOGIN_AGAIN_S: Final = 0.2
_SCRAM_ITERATIONS: Final = 4096
_TYPES: Final = {Resource.TOPIC: ResourceType.TOPIC, Resource.GROUP: ResourceType.GROUP}
_OPERATIONS: Final = {
    Operation.READ: AclOperation.READ,
    Operation.WRITE: AclOperation.WRITE,
    Operation.DESCRIBE: AclOperation.DESCRIBE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupWish:
    """Where the brokers are, and what is to be there."""

    inside: str
    """The brokers' inner listener, which asks for a certificate: host:port, separated by commas."""
    outside: KafkaSettings
    """How agents reach them; user and password are put in."""
    directory: Path
    """client.crt, client.key, ca.pem and passwords/ (console/clusters/cluster_secrets.py)."""
    ue_hosts: Sequence[str]
    replication: int


async def set_up(wish: SetupWish, *, say: Callable[[str], None]) -> None:
    """All of it but the subscribers. Raises BusRefused, BusUnavailable, OSError."""
    passwords = {
        who: Secret((wish.directory / "passwords" / who).read_bytes()) for who in principals(wish.ue_hosts)
    }
    try:
        await asyncio.to_thread(_by_certificate, wish, passwords, say)
    except KafkaException as error:
        raise BusUnavailable(f"Kafka at {wish.inside}: {error}") from error
    await _log_in(wish, passwords)
    say("logged in at each broker")


def _by_certificate(wish: SetupWish, passwords: dict[str, Secret], say: Callable[[str], None]) -> None:
    """Raises KafkaException."""
    client = AdminClient(
        {
            "bootstrap.servers": wish.inside,
            "security.protocol": "SSL",
            "ssl.ca.location": str(wish.directory / "ca.pem"),
            "ssl.certificate.location": str(wish.directory / "client.crt"),
            "ssl.key.location": str(wish.directory / "client.key"),
            "client.id": "otway-setup",
        }
    )
    wanted = {topic.name: topic for topic in catalogue(wish.ue_hosts)}
    settings = {
        topic.name: {**topic_settings(topic), "min.insync.replicas": str(max(1, wish.replication - 1))}
        for topic in wanted.values()
    }
    there = client.list_topics(timeout=_WITHIN_S).topics
    copies = wish.replication
    new = [
        NewTopic(name, num_partitions=topic.partitions, replication_factor=copies, config=settings[name])
        for name, topic in wanted.items()
        if name not in there
    ]
    if new:
        _all(client.create_topics(new, operation_timeout=_WITHIN_S))
    old = [_resource(name, settings[name]) for name in wanted if name in there]
    if old:
        _all(client.incremental_alter_configs(old, request_timeout=_WITHIN_S))
    say(f"{len(wanted)} topics, {len(new)} of them new")
    say("{} rights, {} given, {} taken".format(*_rights(client, wish.ue_hosts)))
    _all(
        client.alter_user_scram_credentials(
            [
                UserScramCredentialUpsertion(
                    who,
                    ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _SCRAM_ITERATIONS),
                    password.reveal(),
                )
                for who, password in passwords.items()
            ]
        )
    )
    say(f"{len(passwords)} passwords")


def _resource(topic: str, settings: dict[str, str]) -> ConfigResource:
    """The settings that a topic which exists is to have."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in settings.items()
    ]
    return ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)


def _rights(client: AdminClient, ue_hosts: Sequence[str]) -> tuple[int, int, int]:
    """How many there are to be, were given and were taken."""
    any_line = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
    )
    there = set(client.describe_acls(any_line, request_timeout=_WITHIN_S).result())
    wanted = {_line(right) for right in rights(ue_hosts)}
    if wanted - there:
        _all(client.create_acls(list(wanted - there), request_timeout=_WITHIN_S))
    if there - wanted:
        _all(client.delete_acls([_filter(line) for line in there - wanted], request_timeout=_WITHIN_S))
    return len(wanted), len(wanted - there), len(there - wanted)


def _line(right: Right) -> AclBinding:
    return AclBinding(
        _TYPES[right.resource],
        right.name,
        ResourcePatternType.LITERAL,
        f"User:{right.principal}",
        "*",
        _OPERATIONS[right.operation],
        AclPermissionType.ALLOW,
    )


def _filter(line: AclBinding) -> AclBindingFilter:
    """Exactly this line."""
    return AclBindingFilter(
        line.restype,
        line.name,
        line.resource_pattern_type,
        line.principal,
        line.host,
        line.operation,
        line.permission_type,
    )


def _all(futures: dict[Any, Any]) -> None:
    """Wait for each. Raises KafkaException."""
    for future in futures.values():
        future.result(_WITHIN_S)


async def _log_in(wish: SetupWish, passwords: dict[str, Secret]) -> None:
    """A broker learns of a new password a moment after it was set: who starts next must not meet that."""
    logins = [
        wish.outside.as_user(who, password, bootstrap=broker)
        for broker in wish.outside.bootstrap.split(",")
        for who, password in passwords.items()
    ]
    await asyncio.gather(*map(_until_let_in, logins))


async def _until_let_in(settings: KafkaSettings) -> None:
    """Raises BusUnavailable."""
    try:
        async with asyncio.timeout(_LOGIN_WITHIN_S):
            while True:
                with suppress(BusUnavailable, BusRefused):
                    async with started(settings, AIOKafkaAdminClient(**settings.client)):
                        return
                await asyncio.sleep(_LOGIN_AGAIN_S)
    except TimeoutError:
        raise BusUnavailable(f"{settings.bootstrap} does not let {settings.user} in") from None
