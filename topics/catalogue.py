"""The topics: who writes, who reads, what keys a partition. The command creates them from here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from protocol.sharding import SHARDS

BATCH_OCTETS_MAX: Final = 262_144  # what one agent's loop sends to one partition at a time


class Party(StrEnum):
    """Who takes part on the bus; an agent's party is its consumer group."""

    UE = "ue"
    KMS = "kms"
    BSF = "bsf"
    CSCF = "cscf"
    COMMAND = "command"
    AUDITOR = "auditor"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: a record's key decides its partition, its value is a message of topics/messages.py."""

    name: str
    keyed_by: str
    partitions: int
    retention_s: int
    writers: frozenset[Party]
    readers: frozenset[Party]
    octets_max: int = BATCH_OCTETS_MAX  # a broker's limit: of a record and of a batch of them


_AGENTS: Final = frozenset({Party.UE, Party.KMS, Party.BSF, Party.CSCF})
_DAY_S: Final = 86_400

KMS: Final = Topic(
    "ims.kms", "call", SHARDS, _DAY_S, frozenset({Party.UE, Party.BSF}), frozenset({Party.KMS})
)
BSF: Final = Topic(
    "ims.bsf", "IMPI", SHARDS, _DAY_S, frozenset({Party.UE, Party.KMS}), frozenset({Party.BSF})
)
CSCF: Final = Topic("ims.cscf", "call", SHARDS, _DAY_S, frozenset({Party.UE}), frozenset({Party.CSCF}))
REPORTS: Final = Topic(
    "ims.reports",
    "call",
    SHARDS,
    7 * _DAY_S,
    frozenset({Party.UE}),
    frozenset({Party.COMMAND, Party.AUDITOR}),
)
AUDIT: Final = Topic(
    "ims.audit", "call", SHARDS, 365 * _DAY_S, frozenset({Party.KMS, Party.BSF}), frozenset({Party.AUDITOR})
)
DEAD_LETTERS: Final = Topic(
    "ims.dead-letters",
    "topic, partition, offset of origin",
    SHARDS,
    30 * _DAY_S,
    _AGENTS,
    frozenset({Party.OPERATOR}),
    octets_max=2 * BATCH_OCTETS_MAX,  # the largest record that any inbox takes, and its headers
)

SHARED: Final = (KMS, BSF, CSCF, REPORTS, AUDIT, DEAD_LETTERS)


def ue_inbox(host: str) -> Topic:
    """The inbox of one UE host, which a single process reads: a handset's state dies with it."""
    return Topic(
        f"ims.ue.{host}",
        "recipient",
        1,
        _DAY_S,
        frozenset({Party.CSCF, Party.KMS, Party.BSF, Party.COMMAND}),
        frozenset({Party.UE}),
    )


def catalogue(ue_hosts: list[str]) -> tuple[Topic, ...]:
    """All topics of a deployment with these UE hosts."""
    return (*SHARED, *(ue_inbox(host) for host in ue_hosts))
