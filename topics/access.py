"""Who may do what on the bus, as Kafka's access lists say it: all of it follows from the catalogue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from topics.catalogue import Party, Topic, catalogue

_GROUPS: Final = {  # the consumer groups of each principal that is not a UE host
    "kms": ("kms", "custodian"),
    "bsf": ("bsf",),
    "cscf": ("cscf",),
    "voicemail": ("voicemail",),
    "transcoder": ("transcoder",),
    "conference": ("conference",),
}


class Resource(StrEnum):
    """What a right is about."""

    TOPIC = "topic"
    GROUP = "group"


class Operation(StrEnum):
    """What may be done; reading or writing a topic implies that it may be described."""

    READ = "read"
    WRITE = "write"
    DESCRIBE = "describe"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """One line of an access list. name: of the topic or the group; `*` is all of them."""

    principal: str
    resource: Resource
    name: str
    operation: Operation


def ue_principal(host: str) -> str:
    """Who a UE host is to the broker and the store."""
    return f"ue-{host}"


def ue_group(host: str) -> str:
    """The consumer group of a UE host."""
    return f"ue.{host}"


def principals(ue_hosts: Sequence[str]) -> tuple[str, ...]:
    """All who log in; the brokers and the set-up show certificates instead."""
    return (*_GROUPS, "operator", "auditor", *map(ue_principal, ue_hosts))


def rights(ue_hosts: Sequence[str]) -> frozenset[Right]:
    """All that is allowed in a deployment with these UE hosts; nothing else is."""
    found = {Right("operator", Resource.GROUP, "*", Operation.DESCRIBE)}
    for principal, groups in (*_GROUPS.items(), *((ue_principal(h), (ue_group(h),)) for h in ue_hosts)):
        found |= {Right(principal, Resource.GROUP, group, Operation.READ) for group in groups}
    for topic in catalogue(ue_hosts):
        found |= set(_on(topic, topic.writers, Operation.WRITE, ue_hosts))
        found |= set(_on(topic, topic.readers, Operation.READ, ue_hosts))
    return frozenset(found)


def _on(
    topic: Topic, parties: Iterable[Party], operation: Operation, ue_hosts: Sequence[str]
) -> Iterator[Right]:
    for party in parties:
        for principal in _principals_of(party, topic, ue_hosts):
            yield Right(principal, Resource.TOPIC, topic.name, operation)


def _principals_of(party: Party, topic: Topic, ue_hosts: Sequence[str]) -> list[str]:
    match party:
        case Party.UE:
            return [ue_principal(host) for host in ue_hosts if topic.host in {"", host}]
        case Party.CUSTODIAN:  # it runs beside the KMS, whose records it changes
            return ["kms"]
        case _:
            return [party.value]
