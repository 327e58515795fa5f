"""How many messages one process of the mailbox, on one core, takes in at a time without losing a packet.

    voicemail   the agent, its loop and its recorder, pinned to one core; a real store, signalling in memory
    callers     sends to every line 50 packets of 188 octets a second, on the other cores

More and more at a time, until one packet of one message is not in the store, or the mailbox falls behind: the
last packets are to be confirmed within CONFIRMED_S of the callers' BYE. What is stored is read back and
compared with what was sent. Neither sender nor store is on the mailbox's core.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final

import msgspec
import structlog
from redis.asyncio import Redis

from agents.mailbox.stored_message import VoicemailSettings
from agents.runtime import Loop
from agents.voicemail import Voicemail
from chaos.bench_clients import Clients, codec, now
from chaos.servers import ROOT
from media.leg import MediaEvent
from media.recorder import Recorder, RecorderSettings
from protocol.deferred import open_mailbox_token, seal_receipt
from protocol.description import Description, Flow, SrtpSuite
from protocol.evidence import Holder, Receipt
from protocol.limits import SKEW_S
from protocol.names import Role, Suite
from protocol.secret import Secret
from protocol.sharding import shard_of
from protocol.transport import MediaAddress
from storage.redis_store import RedisSettings, RedisStore
from storage.voicemail_records import Part, StoredMessage
from topics.bus import Inbound, Outbound
from topics.catalogue import CSCF, KMS, VOICEMAIL, catalogue
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import (
    Bye,
    ByeOk,
    DeclineReason,
    Deposit,
    DepositResponse,
    Invite,
    MailboxOk,
    OfRun,
    clear,
    run_of,
)

STEPS: Final = (100, 200, 400, 800, 1200, 1400, 1600, 1800, 2000)
SPEAK_S: Final = 20
PACKET_S: Final = 0.02
PACKET_OCTETS: Final = 188
CONFIRMED_S: Final = 3.0
_SLICES: Final = 10  # of each 20 ms: not all callers speak at the same instant
_MAILBOX: Final = "sip:voicemail@ims.example"
_CALLER: Final = "sip:alice@ims.example"
_KEY: Final = Secret(bytes(range(32)))


class Deposits(msgspec.Struct, frozen=True):
    """So many messages at a time."""

    at_once: int
    sent: int  # packets
    confirmed: int  # by BYE-OK
    stored: int  # and read back as they were sent
    confirmed_s: float  # from BYE to the last BYE-OK
    sent_in_s: float  # SPEAK_S, unless the callers could not keep up
    cpu: float  # of the mailbox's core, while packets came

    @property
    def whole(self) -> bool:
        """Nothing was lost, and neither the mailbox nor the callers were behind."""
        in_time = self.confirmed_s <= CONFIRMED_S and self.sent_in_s <= SPEAK_S + 1
        return in_time and self.sent == self.confirmed == self.stored


async def measure(servers: Clients, say: Callable[[str], None]) -> list[Deposits]:
    """Step by step, up to the first that is not whole."""
    own, others = _cores()
    for task in os.listdir(f"/proc/{servers.store_pid}/task"):  # noqa: PTH208
        with suppress(OSError):  # without the right to, the store is where it is
            os.sched_setaffinity(int(task), others)
    found: list[Deposits] = []
    for at_once in STEPS:
        say(f"voicemail: {at_once} messages at a time, {SPEAK_S} s")
        found.append(await _step(servers, at_once, own, others))
        async with Redis.from_url(servers.redis.url) as client:
            await client.flushdb()
        if not found[-1].whole:
            break
    return found


def line(found: Sequence[Deposits]) -> str:
    """The figure, and how it was found."""
    whole = [each for each in found if each.whole]
    if not whole:
        return f"voicemail: not even {found[0].at_once} messages at a time without loss"
    most = whole[-1]
    text = (
        f"voicemail, one process on one core: {most.at_once} messages at a time, "
        f"{most.stored} of {most.sent} packets stored, CPU {100 * most.cpu:.0f} %"
    )
    if found[-1].whole:
        return text
    over = found[-1]
    return (
        f"{text}; at {over.at_once} it stored {over.stored} of {over.sent}, sent in {over.sent_in_s:.1f} s, "
        f"and confirmed {over.confirmed} after {over.confirmed_s:.1f} s"
    )


async def _step(servers: Clients, at_once: int, own: set[int], others: set[int]) -> Deposits:
    mailbox = await _start(servers, own, "voicemail", at_once)
    assert mailbox.stdout is not None
    assert mailbox.stdin is not None
    lines = await mailbox.stdout.readline()
    callers = await _start(servers, others, "callers", at_once)
    said, _ = await callers.communicate(lines)
    told, _ = await mailbox.communicate(b"hang up\n")
    return Deposits(at_once=at_once, **json.loads(said), **json.loads(told))


async def _start(servers: Clients, cores: set[int], role: str, count: int) -> asyncio.subprocess.Process:
    """A process of its own on these cores."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos.bench_voicemail", role, str(count)),
        *(servers.redis.url, ",".join(map(str, sorted(cores)))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,  # the lines' addresses are one line of text
        cwd=ROOT,
    )


def _cores() -> tuple[set[int], set[int]]:
    """The mailbox's core, and the others; on a machine that has one only, the same."""
    first, *others = sorted(os.sched_getaffinity(0))
    return {first}, set(others) or {first}


# The mailbox.


class _Callers:
    """Call control, the KMS and the callers, as far as a mailbox sees them."""

    def __init__(self, broker: MemoryBroker, count: int, random: Callable[[int], bytes]) -> None:
        self.lines: dict[str, MediaAddress] = {}  # of each callee's message
        self.kept: dict[str, int] = {}
        self._runs: list[dict[str, Any]] = [
            {"call": random(16), "run": 0, "caller": _CALLER, "callee": f"sip:b{number}@ims.example"}
            for number in range(count)
        ]
        self._random = random
        self._broker = broker
        self._news = asyncio.Event()
        broker.on_append.append(self._appended)

    def invite(self) -> None:
        """A message for each callee."""
        offer = Description(tuple(SrtpSuite), ("PCMU",), Flow.SENDRECV).octets
        for run in self._runs:
            self._say(
                Invite(
                    caller_key="psk:alice",
                    suite=Suite.AES_256_GCM,
                    offer=offer,
                    token_a=bytes(200),
                    media=MediaAddress("127.0.0.1", 9),
                    diverted=DeclineReason.NO_ANSWER,
                    **run,
                )
            )

    def hang_up(self) -> None:
        """All at once."""
        for run in self._runs:
            self._say(Bye(fork=None, by=Role.CALLER, proof=None, **run))

    async def until(self, true: Callable[[], bool]) -> None:
        """Returns when it holds; gives up after a minute."""
        with suppress(TimeoutError):
            async with asyncio.timeout(60):
                while not true():
                    self._news.clear()
                    await self._news.wait()

    def answered(self) -> Iterator[tuple[MediaAddress, dict[str, Any]]]:
        """Each message's line, and its call."""
        for run in self._runs:
            if run["callee"] in self.lines:
                yield self.lines[run["callee"]], run

    def _say(self, message: OfRun) -> None:
        key = message.callee
        partition = shard_of(key) % VOICEMAIL.partitions
        self._broker.append(Outbound(VOICEMAIL.name, partition, key.encode(), encode(message)))

    def _appended(self, record: Inbound) -> None:
        if record.topic not in {CSCF.name, KMS.name}:
            return
        match decode(record.value):
            case Deposit() as deposit:
                self._say(self._granted(deposit))
            case MailboxOk() as ok:
                self.lines[ok.callee] = ok.media
            case ByeOk() as ok:
                self.kept[ok.callee] = ok.kept or 0
        self._news.set()

    def _granted(self, deposit: Deposit) -> DepositResponse:
        """As the KMS would, but that grant_m is for nobody."""
        run, holder = run_of(deposit, deposit.suite), Holder(Role.MAILBOX, "psk:voicemail", _KEY)
        token_v = open_mailbox_token(holder, run, _MAILBOX, deposit.token_v, token_a=deposit.token_a)
        receipt = Receipt(
            *run.clear,
            mailbox=_MAILBOX,
            nonce=token_v.nonce,
            not_before=token_v.time - SKEW_S,
            not_after=token_v.time + token_v.keep_s,
            proof_hash=bytes(32),
        )
        sealed = seal_receipt(holder, run, receipt, token_v=deposit.token_v, random=self._random)
        return DepositResponse(grant_m=bytes(300), receipt_v=sealed, **clear(run))


async def _take_in(count: int, store: RedisStore) -> dict[str, Any]:
    """One process of the mailbox, until it is told that the callers hang up. Prints its lines first."""
    broker = MemoryBroker(catalogue([]))
    random = Random(count).randbytes
    callers = _Callers(broker, count, random)

    def told(event: MediaEvent) -> None:
        loop.tell(event)

    recorder = Recorder(RecorderSettings(lines=count), on_event=told)
    lines = await recorder.start()
    settings = VoicemailSettings(
        identity=_MAILBOX, key_id="psk:voicemail", key=_KEY, instance=random(8).hex(), lines=lines
    )
    loop = Loop(
        Voicemail(settings),
        MemoryBus(broker, "voicemail", VOICEMAIL.name),
        store,
        codec(),
        clock=now,
        random=random,
        carry_out=recorder.carry_out,
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(loop.run(stopping))
    callers.invite()
    await callers.until(lambda: len(callers.lines) == count)
    print(json.dumps([[each.host, each.port] for each, _ in callers.answered()]), flush=True)  # noqa: T201
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.to_thread(sys.stdin.readline)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    hung_up = time.perf_counter()
    callers.hang_up()
    await callers.until(lambda: len(callers.kept) == count)
    confirmed_s = time.perf_counter() - hung_up
    stored = await _stored(store, callers)
    stopping.set()
    await running
    await recorder.stop()
    return {
        "confirmed": sum(callers.kept.values()),
        "stored": stored,
        "confirmed_s": round(confirmed_s, 2),
        "cpu": round(cpu / took, 3),
    }


async def _stored(store: RedisStore, callers: _Callers) -> int:
    """The packets that are in the store, each once, in order, at the message that they were said to."""
    records = codec()
    found = 0
    for number, (_, run) in enumerate(callers.answered()):
        about = (run["caller"], run["callee"], run["call"])
        message = StoredMessage.key_for(*about)
        [record] = await store.read([message.name])
        assert record.value is not None
        parts = range(records.decode(message, record.value).parts)
        keys = [Part.key_for(*about, part) for part in parts]
        rest, before = _of_message(number), -1
        for key, record in zip(keys, await store.read([key.name for key in keys]), strict=True):
            assert record.value is not None
            for packet in records.decode(key, record.value).packets:
                tick = int.from_bytes(packet[4:8], "big")
                found += packet == _of_tick(tick) + rest and tick > before
                before = tick
    return found


# The callers.


def _speak(lines: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """To each line a packet each 20 ms, by absolute deadlines."""
    senders = []
    for number, address in enumerate(lines):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.connect(tuple(address))
        senders.append((sender.send, _of_message(number)))
    ticks = round(SPEAK_S / PACKET_S)
    began = time.perf_counter()
    for tick in range(ticks):
        head = _of_tick(tick)
        for part in range(_SLICES):
            due = began + (tick + part / _SLICES) * PACKET_S
            time.sleep(max(0.0, due - time.perf_counter()))
            for send, rest in senders[part::_SLICES]:
                send(head + rest)
    return {"sent": ticks * len(lines), "sent_in_s": round(time.perf_counter() - began, 1)}


def _of_tick(tick: int) -> bytes:
    """The first 8 octets of a packet, like RTP's: its number is where the timestamp would be."""
    return struct.pack("!BBHI", 0x80, 0, tick & 0xFFFF, tick)


def _of_message(number: int) -> bytes:
    """The rest: the message's number is where the SSRC would be."""
    return number.to_bytes(4, "big").ljust(PACKET_OCTETS - 8, b"\xaa")


def main() -> None:
    """One of the processes: the role, how many, the store and the cores."""
    role, count, url, cores = sys.argv[1:]
    os.sched_setaffinity(0, set(map(int, cores.split(","))))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each message
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if role == "callers":
        told = _speak(json.loads(sys.stdin.readline()))
    else:
        told = asyncio.run(_take_in(int(count), RedisStore(RedisSettings(url=url))))
    print(json.dumps(told), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
