"""How long the next epoch of a conference takes, beside as many single grants.

    epoch     one GROUP with a refresh; a GROUP-RESPONSE, and a GROUP-GRANT for each member
    singles   as many REQUESTs, sent together; a RESPONSE for each

Both first by Kms.handle alone, then by one KMS's loop in a process of its own, on Kafka and Valkey, turn and
turn about: from the first request sent to the last answer taken out of its topic, which is when its record is
acknowledged and one hop more.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import msgspec

from agents.decision import Records
from agents.kms import Kms
from chaos.bench_clients import UNLIMITED, Clients, codec, cpu_s, now, people, requests, start_client
from chaos.lab import draw_focus
from protocol.conference import EpochName, seal_focus_token, seal_member_token
from protocol.encoding import digest
from protocol.evidence import FocusToken, Holder, MemberToken
from protocol.limits import CHANGES_MAX, MEMBERS_MAX
from protocol.names import Permit, Role, Run, Suite
from protocol.profile import HARDENED
from protocol.secret import Secret
from protocol.sharding import shard_of
from storage.memory import MemoryStore
from storage.provisioning import provision_network
from storage.redis_store import RedisStore
from storage.store import Change as Written
from storage.store import Store, StoredPut
from storage.users_file import Device
from topics.bus import Outbound
from topics.catalogue import CONFERENCE, KMS, Topic, ue_inbox
from topics.codec import decode, encode
from topics.kafka import KafkaBus
from topics.messages import (
    Change,
    GroupGrant,
    GroupRequest,
    GroupResponse,
    JoinChange,
    KeyRequest,
    KeyResponse,
    RefreshChange,
)

HOST: Final = "rekey"  # whose inbox has nothing else in it
ROUNDS: Final = 40
_WARM: Final = 5  # rounds that are not counted
_GIVE_UP_S: Final = 60
_SUITE: Final = Suite.AES_256_GCM


class Rekeyed(msgspec.Struct, frozen=True):
    """One way to give keys to so many; median and greatest of the rounds."""

    handle_us: float  # CPU of Kms.handle, all requests of a round together
    p50_ms: float
    max_ms: float
    kms_us: float  # CPU of the KMS's process, a round
    broker_us: float
    store_us: float


class Rekeying(msgspec.Struct, frozen=True):
    """Both ways."""

    members: int
    epoch: Rekeyed
    singles: Rekeyed


async def measure(servers: Clients, say: Callable[[str], None]) -> Rekeying:
    """Alone first. The store knows people() already; the topics of a host called HOST are there."""
    conference = _Conference()
    say(f"rekey: {MEMBERS_MAX} members and {MEMBERS_MAX} single grants, Kms.handle alone")
    store = MemoryStore()
    await provision_network(store, codec(), conference.known, now() - 1000, os.urandom)
    for request in conference.joined():
        await _handled(store, request)
    alone: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        alone[0].append(await _handled(store, conference.next(RefreshChange())))
        singles = [decode(record.value) for record in conference.singles()]
        alone[1].append(sum([await _handled(store, each) for each in singles]))
    say(f"rekey: {ROUNDS} rounds of both through the KMS's loop")
    real = RedisStore(servers.redis)
    await provision_network(real, codec(), [conference.focus], now() - 1000, os.urandom)
    await real.close()
    epoch, single = await _through_loops(servers, _Conference())
    return Rekeying(
        MEMBERS_MAX,
        Rekeyed(round(statistics.median(alone[0])), *epoch),
        Rekeyed(round(statistics.median(alone[1])), *single),
    )


def line(found: Rekeying) -> str:
    """Both side by side."""
    told = [
        f"{name}: {each.p50_ms:g} ms, at most {each.max_ms:g}; CPU µs: Kms.handle {each.handle_us:g}, "
        f"KMS {each.kms_us:g}, broker {each.broker_us:g}, store {each.store_us:g}"
        for name, each in (
            (f"the next epoch for {found.members} members", found.epoch),
            (f"{found.members} single grants", found.singles),
        )
    ]
    ratio = found.epoch.p50_ms / found.singles.p50_ms
    return "\n".join([*told, f"epoch to single grants: {ratio:.2f} in time"])


class _Conference:
    """A focus's side of a conference with as many members as there may be, and their calls beside it."""

    def __init__(self) -> None:
        callers, callees = people()
        self.focus: Final = replace(draw_focus(os.urandom), psk=Secret(digest(b"focus of the benchmark")))
        self.known: Final = [*callers, *callees, self.focus]
        self.group: Final = os.urandom(16)
        self._callers: Final = callers[:MEMBERS_MAX]
        self._callees: Final = callees[:MEMBERS_MAX]
        self._epoch = 0

    def joined(self) -> list[GroupRequest]:
        """All come in."""
        return [
            self.next(*(self._join(each) for each in self._callers[first : first + CHANGES_MAX]))
            for first in range(0, MEMBERS_MAX, CHANGES_MAX)
        ]

    def next(self, *changes: Change) -> GroupRequest:
        """GROUP for the epoch after the last one that was asked for."""
        self._epoch += 1
        name = EpochName(group=self.group, epoch=self._epoch, focus=self.focus.identity, suite=_SUITE)
        token_c = seal_focus_token(
            _holder(Role.FOCUS, self.focus),
            name,
            FocusToken(self.group, self._epoch, os.urandom(16), now()),
            changes=[change.octets for change in changes],
            random=os.urandom,
        )
        return GroupRequest(
            group=self.group,
            focus=self.focus.identity,
            epoch=self._epoch,
            focus_key=self.focus.psk_id,
            suite=_SUITE,
            changes=changes,
            token_c=token_c,
        )

    def record(self, request: GroupRequest) -> Outbound:
        """As the focus sends it."""
        key = self.group.hex()
        return Outbound(KMS.name, shard_of(key), key.encode(), encode(request))

    def singles(self) -> list[Outbound]:
        """A REQUEST for each member's call with somebody."""
        return requests(MEMBERS_MAX, self._callers, self._callees, HOST)

    def _join(self, member: Device) -> JoinChange:
        run = Run(call=os.urandom(16), n=0, caller=member.identity, callee=self.focus.identity, suite=_SUITE)
        token = MemberToken(
            *run.clear, os.urandom(16), now(), (Permit.CONFERENCE,), digest(b"offer"), self.group
        )
        token_g = seal_member_token(_holder(Role.MEMBER, member), run, token, random=os.urandom)
        return JoinChange(run.call, 0, member.identity, member.psk_id, _SUITE, token_g)


def _holder(role: Role, device: Device) -> Holder:
    assert device.psk is not None
    return Holder(role, device.psk_id, device.psk)


async def _handled(store: Store, request: object) -> float:
    """µs of CPU in `handle`; what it decides is stored. It is granted."""
    assert isinstance(request, GroupRequest | KeyRequest)
    kms, records = Kms(HARDENED, UNLIMITED), codec()
    keys = {key.name: key for key in kms.reads(request)}
    stored = dict(zip(keys, await store.read(list(keys)), strict=True))
    found = {
        name: records.decode(keys[name], each.value)
        for name, each in stored.items()
        if each.value is not None
    }
    began = time.process_time()
    decision = kms.handle(request, Records(found), now(), os.urandom)
    took = time.process_time() - began
    assert isinstance(decision.sends[0].message, GroupResponse | KeyResponse), decision.sends[0].message
    puts = [
        StoredPut(
            put.key.name,
            stored[put.key.name].version,
            os.urandom(16),
            None if put.record is None else records.encode(put.key, put.record),
            put.expires,
        )
        for put in decision.puts
    ]
    assert all(await store.write([Written(puts)]))
    return 1e6 * took


class _Taking:
    """One end that asks, and takes the answers out of its inbox."""

    def __init__(self, servers: Clients, inbox: Topic) -> None:
        self._bus = KafkaBus(servers.kafka, f"rekey-{inbox.name}", inbox.name)

    async def start(self) -> None:
        """Returns when it has its partitions."""
        await self._bus.start()
        while not self._bus.joined():
            self._bus.commit(await self._bus.receive(200, 0.1))

    async def ask(self, records: Sequence[Outbound], answers: int, kind: type) -> float:
        """Milliseconds until so many answers of this kind have come; nothing else comes."""
        began = time.perf_counter()
        await self._bus.send(records)
        async with asyncio.timeout(_GIVE_UP_S):
            while answers:
                batch = await self._bus.receive(200, 0.1)
                answers -= sum(isinstance(decode(record.value), kind) for record in batch)
                self._bus.commit(batch)
        return 1000 * (time.perf_counter() - began)

    async def stop(self) -> None:
        """Leave."""
        await self._bus.stop()


_Times = tuple[float, float, float, float, float]


async def _through_loops(servers: Clients, conference: _Conference) -> tuple[_Times, _Times]:
    """Median and greatest, and CPU of KMS, broker and store: of an epoch, and of single grants."""
    joins = conference.joined()
    inputs = len(joins) + (_WARM + ROUNDS) * (1 + MEMBERS_MAX)
    kms = await start_client(servers, "kms", count=inputs)  # then it ends in order
    focus, callees = _Taking(servers, CONFERENCE), _Taking(servers, ue_inbox(HOST))
    await focus.start()
    await callees.start()
    for number, request in enumerate(joins, 1):
        await focus.ask([conference.record(request)], number * CHANGES_MAX, GroupGrant)
    pids = (kms.pid, servers.broker_pid, servers.store_pid)
    times: tuple[list[float], list[float]] = ([], [])
    used = ([0.0] * 3, [0.0] * 3)
    for _ in range(_WARM + ROUNDS):
        for way in range(2):
            records = (
                [conference.record(conference.next(RefreshChange()))] if not way else conference.singles()
            )
            before = [cpu_s(pid) for pid in pids]
            asking, kind = (callees, KeyResponse) if way else (focus, GroupGrant)
            times[way].append(await asking.ask(records, MEMBERS_MAX, kind))
            if len(times[way]) > _WARM:
                used[way][:] = [
                    sofar + cpu_s(pid) - at for sofar, pid, at in zip(used[way], pids, before, strict=True)
                ]
    await kms.wait()
    await focus.stop()
    await callees.stop()
    return _times(times[0][_WARM:], used[0]), _times(times[1][_WARM:], used[1])


def _times(took: Sequence[float], used: Sequence[float]) -> _Times:
    kms, broker, store = (round(1e6 * each / len(took)) for each in used)
    return round(statistics.median(took), 1), round(max(took), 1), kms, broker, store
