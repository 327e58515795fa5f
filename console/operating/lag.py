"""How far each agent is in its inbox: `otway topics lag`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import msgspec

from topics.access import ue_group
from topics.catalogue import INBOXES, Party, ue_inbox
from topics.kafka_admin import PartitionLag, lags, list_topics
from topics.kafka_clients import KafkaSettings


class InboxLag(msgspec.Struct, frozen=True, kw_only=True):
    """A consumer group in its inbox, or in one partition of it. The offsets of a whole inbox are sums."""

    group: str
    topic: str
    partition: int | None  # None: the whole inbox
    committed: int | None  # of the record that the group takes next; None: it has never committed
    end: int  # of the record that will be written next
    lag: int  # records between; without a commit, all that there are


async def inbox_lags(settings: KafkaSettings, *, by_partition: bool) -> tuple[InboxLag, ...]:
    """Of every agent whose inbox is there, by group and partition. Raises BusUnavailable, BusRefused."""
    there = {state.name for state in await list_topics(settings)}
    readers = [(reader.value, inbox.name) for inbox in INBOXES for reader in inbox.readers - {Party.OPERATOR}]
    prefix = ue_inbox("").name
    hosts = sorted(name.removeprefix(prefix) for name in there if name.startswith(prefix))
    readers += [(ue_group(host), ue_inbox(host).name) for host in hosts]
    found = await lags(settings, [(group, inbox) for group, inbox in readers if inbox in there])
    in_order = sorted(found, key=lambda one: (one.group, one.topic, one.partition))
    if by_partition:
        return tuple(_sum([one], one.partition) for one in in_order)
    return tuple(_sum(list(each), None) for _, each in groupby(in_order, lambda one: (one.group, one.topic)))


def lines(found: Iterable[InboxLag]) -> Iterable[str]:
    """One for each."""
    for each in found:
        place = each.topic if each.partition is None else f"{each.topic}/{each.partition}"
        committed = "none" if each.committed is None else str(each.committed)
        yield f"{each.group:12}  {place:20}  committed {committed:>9}  end {each.end:>9}  lag {each.lag:>9}"


def _sum(partitions: Sequence[PartitionLag], partition: int | None) -> InboxLag:
    """What has no commit counts from its oldest record."""
    never = all(one.committed is None for one in partitions)
    taken = sum(one.first if one.committed is None else one.committed for one in partitions)
    return InboxLag(
        group=partitions[0].group,
        topic=partitions[0].topic,
        partition=partition,
        committed=None if never else taken,
        end=sum(one.end for one in partitions),
        lag=sum(one.lag for one in partitions),
    )
