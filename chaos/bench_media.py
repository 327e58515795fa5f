"""What it costs to mix a conference and to transcode calls, beside the same work without anything around it.

    bridge    a real BridgeEngine on one core: sockets on loopback, SRTP, codecs, the 20 ms beat
    phones    on the other cores: to each line a packet of SRTP each 20 ms; takes what comes back

Everybody speaks all the time. The bridge's CPU is its process's own clock, so that others on the machine
count little. In the same process, right after it: numpy's sum of the others; pylibsrtp and codec for as many
packets; PyAV alone for as many calls. In the bridge's place, a bare echo: asyncio's sockets, each datagram
back at once.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from chaos.bench_bare import numpy_us, packets, payloads, pyav_us, srtp_and_codec_us
from chaos.servers import ROOT
from media.bridge import BridgeEngine
from media.codec import CODECS, Decoder
from media.engine import EngineSettings
from media.leg import Leg, OpenMedia
from media.line import SocketAddress
from media.pcm import PACKET_S, Pcm
from media.rtcp import is_rtcp
from media.rtp import HEADER_OCTETS
from media.srtp import SendingStream, stream_of_peer
from protocol.description import Flow, SrtpSuite
from protocol.secret import Secret
from protocol.srtp_keys import srtp_master
from protocol.transport import MediaAddress

MIXES: Final = (("PCMU", 10), ("PCMU", 50), ("PCMU", 200), ("opus", 10), ("opus", 50))
PAIRS: Final = (("PCMA", "PCMU"), ("G722", "PCMU"), ("opus", "PCMU"))
CALLS: Final = 20  # transcoded at a time, to learn what one costs
FILLED: Final = 0.8  # of the core, by that; so many calls are tried
WARM_S: Final = 1.0
MEASURED_S: Final = 3.0
_SLICES: Final = 10  # of each 20 ms: not all speak at the same instant
_AUDIBLE: Final = 100.0  # mean of the absolute samples, of 32,767
_TICK_US: Final = 1e6 * PACKET_S
_OURS: Final = "sip:bridge@ims.example"
_GROUP: Final = bytes(range(16))
_KEY: Final = Secret(bytes(range(32)))


class Mixed(msgspec.Struct, frozen=True):
    """One conference; µs of CPU for each 20 ms."""

    codec: str
    members: int
    bridge_us: float
    numpy_us: float  # its mix-minus of as many arrays
    srtp_and_codec_us: float
    echo_us: float  # as many datagrams in and out
    unheard: int  # packets, a moment after the last was sent
    on_time: bool  # no beat was late at the end

    @property
    def bare_us(self) -> float:
        """The three together."""
        return self.numpy_us + self.srtp_and_codec_us + self.echo_us


class Transcoded(msgspec.Struct, frozen=True):
    """Calls between two codecs; µs of CPU for each call and 20 ms, both directions."""

    codecs: tuple[str, str]
    bridge_us: float
    pyav_us: float
    tried: int  # calls at a time
    tried_cpu: float  # of the core
    unheard: int  # of their packets, a moment after the last was sent
    on_time: bool  # no beat was late at the end

    @property
    def calls(self) -> int:
        """That fill one core."""
        return int(_TICK_US / self.bridge_us)

    @property
    def pyav_calls(self) -> int:
        """That would fill it if there was nothing but PyAV."""
        return int(_TICK_US / self.pyav_us)


class Media(msgspec.Struct, frozen=True):
    """All of it."""

    mixes: tuple[Mixed, ...]
    transcoded: tuple[Transcoded, ...]


class _Load(msgspec.Struct, frozen=True):
    """Sessions: the codec of each, and how many make a bridge."""

    codecs: tuple[str, ...]
    each: int
    conference: bool
    echo: bool = False  # no bridge


class _Carried(msgspec.Struct, frozen=True):
    """What a bridge has done with a load. us: of CPU, each tick."""

    bridge_us: float
    on_time: bool
    received: int
    bare: dict[str, float]


async def measure(say: Callable[[str], None]) -> Media:
    """Mixes first, then calls."""
    mixes, transcoded, echoes = [], [], {}
    for members in dict.fromkeys(members for _, members in MIXES):
        say(f"mix: {members} members, an echo")
        load = _Load(("PCMU",) * members, members, conference=True, echo=True)
        echoes[members] = (await _carry(load))[0].bridge_us
    for codec, members in MIXES:
        say(f"mix: {members} members, {codec}")
        carried, unheard = await _carry(_Load((codec,) * members, members, conference=True))
        mixes.append(
            Mixed(
                codec,
                members,
                carried.bridge_us,
                **carried.bare,
                echo_us=echoes[members],
                unheard=unheard,
                on_time=carried.on_time,
            )
        )
    for pair in PAIRS:
        say(f"transcoding: {pair[0]} and {pair[1]}")
        few, _ = await _carry(_Load(pair * CALLS, 2, conference=False))
        call_us = few.bridge_us / CALLS
        tried = max(1, int(FILLED * _TICK_US / call_us))
        say(f"transcoding: {tried} calls of {pair[0]} and {pair[1]} at a time")
        many, unheard = await _carry(_Load(pair * tried, 2, conference=False))
        transcoded.append(
            Transcoded(
                pair,
                round(call_us, 1),
                few.bare["pyav_us"],
                tried,
                round(many.bridge_us / _TICK_US, 3),
                unheard,
                many.on_time,
            )
        )
    return Media(tuple(mixes), tuple(transcoded))


def show(found: Media, console: Console) -> None:
    """Two tables."""
    table = Table("mix, % of 20 ms", "bridge", "numpy", "SRTP, codec", "echo", "to all three", "unheard")
    for mix in found.mixes:
        shares = (mix.bridge_us, mix.numpy_us, mix.srtp_and_codec_us, mix.echo_us)
        told = (f"{100 * us / _TICK_US:.1f}" for us in shares)
        ratio = f"{mix.bridge_us / mix.bare_us:.2f}"
        table.add_row(f"{mix.members} {mix.codec}", *told, ratio, _fate(mix.unheard, on_time=mix.on_time))
    console.print(table)
    table = Table("call, CPU µs", "bridge", "PyAV", "calls a core", "by PyAV", "tried", "CPU %", "unheard")
    for call in found.transcoded:
        told = (f"{us:g}" for us in (call.bridge_us, call.pyav_us, call.calls, call.pyav_calls, call.tried))
        cpu = f"{100 * call.tried_cpu:.0f}"
        table.add_row("-".join(call.codecs), *told, cpu, _fate(call.unheard, on_time=call.on_time))
    console.print(table)


def _fate(unheard: int, *, on_time: bool) -> str:
    return f"{unheard}" if on_time else f"{unheard}, late"


async def _carry(load: _Load) -> tuple[_Carried, int]:
    """A bridge with its phones, and how many of their packets it has not heard."""
    cores = sorted(os.sched_getaffinity(0))
    bridge = await _start("bridge", cores[:1], load)
    phones = await _start("phones", cores[1:] or cores, load)
    assert bridge.stdin is not None
    assert bridge.stdout is not None
    assert phones.stdout is not None
    bridge.stdin.write(await phones.stdout.readline())
    sent, _ = await phones.communicate(await bridge.stdout.readline())
    carried, _ = await bridge.communicate(b"phones are done\n")
    assert (bridge.returncode, phones.returncode) == (0, 0), "a process of the benchmark failed"
    found = msgspec.json.decode(carried, type=_Carried)
    return found, int(sent) - found.received


async def _start(role: str, cores: Sequence[int], load: _Load) -> asyncio.subprocess.Process:
    """A process of its own on these cores."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chaos.bench_media", role, ",".join(map(str, cores))),
        msgspec.json.encode(load).decode(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=2**20,  # the lines' ports are one line of text
        cwd=ROOT,
    )


def _leg(load: _Load, number: int, port: int, *, at_bridge: bool) -> Leg:
    """Either end's, of the session of this number."""
    ends = (_OURS, f"sip:user{number}@ims.example")
    return Leg(
        session=f"session {number}",
        line=number,
        root=_KEY,
        suite=SrtpSuite.AEAD_AES_256_GCM,
        codec=load.codecs[number],
        local=ends[not at_bridge],
        remote=ends[at_bridge],
        remote_address=MediaAddress("127.0.0.1", port),
        media_line=0,
        n=1,
        flow=Flow.SENDRECV,
        lifetime_s=600,
        group=_GROUP if load.conference else None,
        bridge=f"bridge {number // load.each}",
    )


# The bridge.


async def _bridge(load: _Load) -> _Carried:
    """Prints its ports once it has those of the phones, and then measures."""
    size = len(load.codecs)
    engine = BridgeEngine(EngineSettings(lines=size), random=Random(1).randbytes, on_event=lambda _: None)
    lines = await engine.start()
    ports = json.loads(sys.stdin.readline())
    for number, port in enumerate(ports):
        engine.carry_out(OpenMedia(_leg(load, number, port, at_bridge=True)))
    print(json.dumps([line.port for line in lines]), flush=True)  # noqa: T201
    await asyncio.sleep(WARM_S)
    sent, cpu, began = _sent(engine), time.process_time(), time.perf_counter()
    await asyncio.sleep(MEASURED_S)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    ticks = (_sent(engine) - sent) / size
    await asyncio.to_thread(sys.stdin.readline)
    received = sum(each.received for each in engine.statistics().values())
    await engine.stop()
    on_time = ticks >= took / PACKET_S - 2
    return _Carried(round(1e6 * cpu / ticks, 1), on_time, received, _bare(load))


class _Echo(asyncio.DatagramProtocol):
    received = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: SocketAddress) -> None:
        self.received += 1
        self.transport.sendto(data, addr)


async def _echo(load: _Load) -> _Carried:
    """As a bridge, which it is not."""
    loop = asyncio.get_running_loop()
    ends = [await loop.create_datagram_endpoint(_Echo, ("127.0.0.1", 0)) for _ in load.codecs]
    sys.stdin.readline()
    print(json.dumps([sent.get_extra_info("sockname")[1] for sent, _ in ends]), flush=True)  # noqa: T201
    await asyncio.sleep(WARM_S)
    cpu, began = time.process_time(), time.perf_counter()
    await asyncio.sleep(MEASURED_S)
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    await asyncio.to_thread(sys.stdin.readline)
    received = sum(echo.received for _, echo in ends)
    for sent, _ in ends:
        sent.close()
    return _Carried(round(1e6 * cpu * PACKET_S / took, 1), on_time=True, received=received, bare={})


def _sent(engine: BridgeEngine) -> int:
    return sum(each.sent for each in engine.statistics().values())


def _bare(load: _Load) -> dict[str, float]:
    if not load.conference:
        calls = len(load.codecs) // 2
        return {"pyav_us": round(pyav_us((load.codecs[0], load.codecs[1]), calls) / calls, 1)}
    codec, members = CODECS[load.codecs[0]], len(load.codecs)
    return {
        "numpy_us": numpy_us(members),
        "srtp_and_codec_us": srtp_and_codec_us(codec, members),
    }


# The phones.


def _phones(load: _Load) -> int:
    """Prints the ports, and speaks once it has those of the bridge. Returns how many packets were sent."""
    ticks = round((WARM_S + MEASURED_S + 0.5) / PACKET_S)
    said = {name: payloads(CODECS[name]) for name in set(load.codecs)}
    phones: list[tuple[socket.socket, Sequence[bytes]]] = []
    for number, name in enumerate(load.codecs):
        leg, ssrc = _leg(load, number, 9, at_bridge=False), number + 1
        master = srtp_master(
            _KEY,
            leg.suite,
            sender=leg.local,
            receiver=leg.group or leg.remote,
            media_line=0,
            ssrc=ssrc,
            n=leg.n,
        )
        srtp = packets(SendingStream(master, ssrc), CODECS[name], ssrc, said[name], ticks)
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("127.0.0.1", 0))
        bound.setblocking(False)  # noqa: FBT003
        phones.append((bound, srtp))
    print(json.dumps([bound.getsockname()[1] for bound, _ in phones]), flush=True)  # noqa: T201
    for (bound, _), port in zip(phones, json.loads(sys.stdin.readline()), strict=True):
        bound.connect(("127.0.0.1", port))
    heard = _speak(phones, ticks)
    assert load.echo or _audible(_leg(load, 0, 9, at_bridge=False), heard), (
        "the first phone has heard nothing"
    )
    return ticks * len(phones)


def _speak(phones: Sequence[tuple[socket.socket, Sequence[bytes]]], ticks: int) -> list[bytes]:
    """A packet each 20 ms, by absolute deadlines. Returns what came to the first phone."""
    heard: list[bytes] = []
    began = time.perf_counter()
    for tick in range(ticks):
        for part in range(_SLICES):
            due = began + (tick + part / _SLICES) * PACKET_S
            time.sleep(max(0.0, due - time.perf_counter()))
            for bound, srtp in phones[part::_SLICES]:
                bound.send(srtp[tick])
                came = _drained(bound)
                if bound is phones[0][0]:
                    heard += came
    time.sleep(0.2)
    return heard


def _drained(bound: socket.socket) -> list[bytes]:
    came = []
    while True:
        try:
            came.append(bound.recv(2048))
        except BlockingIOError:
            return came


def _audible(leg: Leg, heard: Sequence[bytes]) -> bool:
    """Opened and decoded: there is sound in it."""
    packets = [packet for packet in heard if not is_rtcp(packet)]
    stream = stream_of_peer(leg, int.from_bytes(packets[0][8:12], "big"))
    decoder = Decoder(CODECS[leg.codec])
    sound: Sequence[Pcm] = [decoder.decode(stream.unprotect(packet)[HEADER_OCTETS:]) for packet in packets]
    return float(np.abs(np.concatenate(sound).astype(np.float64)).mean()) > _AUDIBLE


def main() -> None:
    """One of the processes, or without arguments all of it."""
    if len(sys.argv) == 1:
        show(asyncio.run(measure(Console(stderr=True).print)), Console())
        return
    role, cores, load = sys.argv[1:]
    os.sched_setaffinity(0, set(map(int, cores.split(","))))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each session
    told = msgspec.json.decode(load, type=_Load)
    if role == "phones":
        answer = f"{_phones(told)}"
    else:
        answer = msgspec.json.encode(asyncio.run(_echo(told) if told.echo else _bridge(told))).decode()
    print(answer, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
