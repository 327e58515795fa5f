"""The topics: who writes, who reads, what keys a partition. The command creates them, and whoever may use
them (topics/access.py), from here."""

from __future__ import annotations

from collections.abc import Sequence
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
    CUSTODIAN = "custodian"
    VOICEMAIL = "voicemail"
    TRANSCODER = "transcoder"
    CONFERENCE = "conference"
    OPERATOR = "operator"
    AUDITOR = "auditor"


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic: a record's key decides its partition, its value is a message of topics/messages/."""

    name: str
    keyed_by: str
    partitions: int
    retention_s: int
    writers: frozenset[Party]
    readers: frozenset[Party]
    octets_max: int = BATCH_OCTETS_MAX  # a broker's limit: of a record and of a batch of them
    host: str = ""  # of this UE host's own topics: "UE" among writers or readers is this one alone
    latest_only: bool = False  # of each key only the last record is kept for long


_AGENTS: Final = frozenset(
    {
        Party.UE,
        Party.KMS,
        Party.BSF,
        Party.CSCF,
        Party.CUSTODIAN,
        Party.VOICEMAIL,
        Party.TRANSCODER,
        Party.CONFERENCE,
    }
)
_OPERATOR: Final = frozenset({Party.OPERATOR})
_AUDITORS: Final = frozenset({Party.OPERATOR, Party.AUDITOR})
_HOUR_S: Final = 3_600
_DAY_S: Final = 86_400

# An operator sees every message (what is secret in it is sealed), and may write to every inbox, since a dead
# letter is replayed into the one that it came from.
KMS: Final = Topic(
    "ims.kms",
    "call",
    SHARDS,
    _DAY_S,
    _OPERATOR | {Party.UE, Party.BSF, Party.CUSTODIAN, Party.VOICEMAIL, Party.TRANSCODER, Party.CONFERENCE},
    _OPERATOR | {Party.KMS},
)
BSF: Final = Topic(
    "ims.bsf", "IMPI", SHARDS, _DAY_S, _OPERATOR | {Party.UE, Party.KMS}, _OPERATOR | {Party.BSF}
)
CSCF: Final = Topic(
    "ims.cscf",
    "call",
    SHARDS,
    _DAY_S,
    _OPERATOR | {Party.UE, Party.KMS, Party.VOICEMAIL, Party.TRANSCODER},  # of the KMS: its notices
    _OPERATOR | {Party.CSCF},
)
VOICEMAIL: Final = Topic(
    "ims.voicemail",
    "callee",  # all of one mailbox in one partition: its limits are counted by one instance at a time
    SHARDS,
    _DAY_S,
    _OPERATOR | {Party.CSCF, Party.KMS},  # what devices ask comes by way of call control, which knows them
    _OPERATOR | {Party.VOICEMAIL},
)
TRANSCODER: Final = Topic(
    "ims.transcoder",
    "call",
    SHARDS,
    _DAY_S,
    _OPERATOR | {Party.CSCF, Party.KMS},
    _OPERATOR | {Party.TRANSCODER},
)
CONFERENCE: Final = Topic(
    "ims.conference",
    "conference",  # one instance at a time decides about it, and mixes it
    SHARDS,
    _DAY_S,
    _OPERATOR | {Party.CSCF, Party.KMS},
    _OPERATOR | {Party.CONFERENCE},
)
ORDERS: Final = Topic("ims.orders", "key id", SHARDS, _DAY_S, _OPERATOR, _OPERATOR | {Party.CUSTODIAN})
REPORTS: Final = Topic(
    "ims.reports", "call", SHARDS, 7 * _DAY_S, frozenset({Party.UE, Party.CONFERENCE}), _AUDITORS
)
AUDIT: Final = Topic(
    "ims.audit",
    "call",
    SHARDS,
    365 * _DAY_S,
    frozenset({Party.KMS, Party.BSF, Party.CUSTODIAN}),
    _AUDITORS,
)
STATUS: Final = Topic("ims.status", "instance", 1, _HOUR_S, _AGENTS - {Party.UE}, _OPERATOR)
UE_STATUS: Final = Topic("ims.status.ue", "instance", 1, _HOUR_S, frozenset({Party.UE}), _OPERATOR)
DEAD_LETTERS: Final = Topic(
    "ims.dead-letters",
    "topic, partition, offset of origin",
    SHARDS,
    30 * _DAY_S,
    _AGENTS | _OPERATOR,
    _OPERATOR,
    octets_max=2 * BATCH_OCTETS_MAX,  # the largest record that any inbox takes, and its headers
    latest_only=True,
)

INBOXES: Final = (KMS, BSF, CSCF, VOICEMAIL, TRANSCODER, CONFERENCE, ORDERS)
SHARED: Final = (*INBOXES, REPORTS, AUDIT, STATUS, UE_STATUS, DEAD_LETTERS)


def ue_inbox(host: str) -> Topic:
    """The inbox of one UE host, which a single process reads: a handset's state dies with it."""
    writers = _OPERATOR | {Party.CSCF, Party.KMS, Party.BSF, Party.VOICEMAIL, Party.CONFERENCE}
    return Topic(f"ims.ue.{host}", "recipient", 1, _DAY_S, writers, _OPERATOR | {Party.UE}, host=host)


def ue_sounds(host: str) -> Topic:
    """What a UE host is asked to say, and what it has heard: for whoever tests with it."""
    both = _OPERATOR | {Party.UE}
    return Topic(f"ims.sounds.{host}", "sound", 1, _HOUR_S, both, both, host=host)


def catalogue(ue_hosts: Sequence[str]) -> tuple[Topic, ...]:
    """All topics of a deployment with these UE hosts."""
    return (*SHARED, *(topic for host in ue_hosts for topic in (ue_inbox(host), ue_sounds(host))))
