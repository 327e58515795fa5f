"""`otway status`: who runs, what each holds, and whether every partition is held by an agent that is ready.

It reads what agents have told of themselves in the last half minute (console/hosting/operations.py), and
asks no agent anything: one that is stuck or cut off shows by its silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec
import typer
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console
from rich.table import Table

from console.operating.administration import Json, operator_settings
from console.operating.showing import printable
from console.outside import clock
from protocol.checks import Refused
from topics.bus import BusRefused, Inbound
from topics.catalogue import (
    BSF,
    CONFERENCE,
    CSCF,
    KMS,
    ORDERS,
    STATUS,
    TRANSCODER,
    UE_STATUS,
    VOICEMAIL,
    Party,
)
from topics.codec import decode
from topics.kafka_clients import KafkaSettings, make_consumer, started, translated
from topics.kafka_reading import next_records
from topics.messages import Status

LOOK_BACK_S: Final = 30
SILENT_S: Final = 6  # three heartbeats
PARTITIONS: Final[Mapping[str, int]] = {
    "kms": KMS.partitions,
    "custodian": ORDERS.partitions,
    "bsf": BSF.partitions,
    "cscf": CSCF.partitions,
}
"""How many each role of the network must hold for calls to come up and orders to be carried out."""

FUNCTIONS: Final[Mapping[str, int]] = {
    "voicemail": VOICEMAIL.partitions,
    "transcoder": TRANSCODER.partitions,
    "conference": CONFERENCE.partitions,
}
"""Roles that need not be there; one that is must hold all of its partitions as well."""

READY: Final = "ready"


class Row(msgspec.Struct, frozen=True):
    """One agent of one instance."""

    role: str
    instance: str
    partitions: tuple[int, ...]
    lag: int
    handled: int
    started: int  # seconds since 1970 UTC
    health: str

    @property
    def ready(self) -> bool:
        """Whether it is heard of and does its work."""
        return self.health == READY


class Share(msgspec.Struct, frozen=True):
    """Who of one role holds how much."""

    role: str
    partitions: int  # that there are
    held: int  # of them by agents that are ready
    missing: tuple[int, ...]  # by none


class Standing(msgspec.Struct, frozen=True):
    """The whole deployment."""

    agents: tuple[Row, ...]
    roles: tuple[Share, ...]

    @property
    def good(self) -> bool:
        """Whether every partition of every role is held by an agent that is ready."""
        return not any(share.missing for share in self.roles)


def status(*, as_json: Json = False) -> None:
    """Who runs and holds which partitions, from what agents have told in the last 30 seconds.

    Exit code 0: every partition of KMS, custodian, BSF and CSCF, and of a mailbox, transcoder or focus that
    has told of itself, is held by an agent that is ready.
    """
    settings = operator_settings().kafka_settings
    standing = standing_of(asyncio.run(heard(settings, LOOK_BACK_S)), clock())
    if as_json:
        typer.echo(msgspec.json.encode(standing))
    else:
        _show(standing)
    raise typer.Exit(0 if standing.good else 1)


async def heard(settings: KafkaSettings, back_s: int) -> list[Status]:
    """What agents have told in the last so many seconds, in its order. Raises BusUnavailable, BusRefused."""
    since_ms = 1000 * (clock() - back_s)
    found: list[Status] = []
    async with started(settings, make_consumer(settings)) as consumer:
        with translated(settings):
            async with asyncio.timeout(settings.deadline_s):
                there = await consumer.topics()
                for topic in (STATUS, UE_STATUS):
                    if topic.name not in there:
                        raise BusRefused(f"no topic {topic.name}: create it with `otway topics create`")
                    records = await _since(consumer, TopicPartition(topic.name, 0), since_ms)
                    told = [message for record in records if (message := _read(record)) is not None]
                    # a UE host says how it stands itself, and nothing about the network
                    found += [
                        message for message in told if (message.role == Party.UE) == (topic is UE_STATUS)
                    ]
    return found


def standing_of(messages: Iterable[Status], now: int) -> Standing:
    """The last word of each agent; now: seconds since 1970 UTC."""
    last = {(message.role, message.instance): message for message in messages}
    rows = tuple(_row(message, now) for _, message in sorted(last.items()))
    there = {row.role for row in rows}
    roles = {**PARTITIONS, **{role: count for role, count in FUNCTIONS.items() if role in there}}
    return Standing(rows, tuple(_share(role, count, rows) for role, count in roles.items()))


def ranges(numbers: Iterable[int]) -> str:
    """0-5, 7 for 0 1 2 3 4 5 7."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(str(end) for end in part) for part in parts)


async def _since(consumer: AIOKafkaConsumer, place: TopicPartition, since_ms: int) -> list[Inbound]:
    """The records of a partition from a time on, milliseconds since 1970 UTC, to its end as it is now."""
    first = (await consumer.offsets_for_times({place: since_ms}))[place]
    end = (await consumer.end_offsets([place]))[place]
    if first is None or first.offset >= end:
        return []
    consumer.assign([place])
    consumer.seek(place, first.offset)
    found: list[Inbound] = []
    while await consumer.position(place) < end:
        found += await next_records(consumer, place, wait_s=0.2)
    return found


def _read(record: Inbound) -> Status | None:
    """None for what is no status, and for what a UE host says of the network."""
    try:
        message = decode(record.value)
    except Refused:
        return None
    if not isinstance(message, Status) or (message.role == Party.UE) != (record.topic == UE_STATUS.name):
        return None
    return message


def _row(message: Status, now: int) -> Row:
    silent_s = now - message.at
    health = READY if message.waiting_for is None else f"waiting for {message.waiting_for}"
    return Row(
        role=printable(message.role),
        instance=printable(message.instance),
        partitions=message.partitions,
        lag=message.lag,
        handled=message.handled,
        started=message.started,
        health=f"silent for {silent_s} s" if silent_s > SILENT_S else printable(health),
    )


def _share(role: str, count: int, rows: Sequence[Row]) -> Share:
    held = {partition for row in rows if row.role == role and row.ready for partition in row.partitions}
    missing = tuple(sorted(set(range(count)) - held))
    return Share(role, count, count - len(missing), missing)


def _show(standing: Standing) -> None:
    console = Console(highlight=False, markup=False)
    if standing.agents:
        table = Table("role", "instance", "partitions", "lag", "handled", "up for", "health")
        for row in standing.agents:
            table.add_row(*_cells(row, clock()))
        console.print(table)
    else:
        console.print(f"no agent has told anything in the last {LOOK_BACK_S} seconds")
    for share in standing.roles:
        line = f"{share.role:10}{share.held:4} of {share.partitions} partitions"
        if share.missing:
            line += f", and no agent that is ready holds {ranges(share.missing)}"
        console.print(line, style="bold red" if share.missing else None, soft_wrap=True)


def _cells(row: Row, now: int) -> Sequence[str]:
    numbers = (str(row.lag), str(row.handled))
    return (row.role, row.instance, ranges(row.partitions), *numbers, _lasting(now - row.started), row.health)


def _lasting(seconds: int) -> str:
    """In the largest unit of which there are two."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{max(0, seconds)} s"
