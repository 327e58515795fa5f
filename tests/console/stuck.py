"""An agent's process that gets stuck, for its watchdog to end.

python -m tests.console.stuck loop                 its handler never returns
python -m tests.console.stuck log                  nobody reads its log, and its handler says much
python -m tests.console.stuck work                 its bus has records and gives none out
python -m tests.console.stuck bus BOOTSTRAP        Kafka there falls silent
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Sequence

import structlog

from agents.cscf import Cscf
from agents.decision import Decision, Input, Records
from agents.runtime import Loop
from chaos.lab import draw_codec
from console import logs
from console.hosting.readiness import Watched
from console.hosting.watchdog import Patience, watching
from console.outside import clock, random
from protocol.profile import HARDENED
from protocol.sealing import Random
from storage.memory import MemoryStore
from topics.bus import Bus, Inbound, Outbound
from topics.catalogue import CSCF, catalogue
from topics.codec import encode
from topics.kafka import KafkaBus
from topics.kafka_clients import KafkaSettings
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import Contact, Register

REGISTER = Register(identity="sip:a@ims.example", expires_s=60, sender=Contact("a", "a@ims.example"))
NEVER_S = 3600.0
PATIENCE = {
    "loop": Patience(turn_s=0.5, progress_s=NEVER_S, silence_s=NEVER_S, look_s=0.2),
    "log": Patience(turn_s=0.5, progress_s=NEVER_S, silence_s=NEVER_S, look_s=0.2),
    "work": Patience(turn_s=NEVER_S, progress_s=0.5, silence_s=NEVER_S, look_s=0.2),
    "bus": Patience(turn_s=NEVER_S, progress_s=NEVER_S, silence_s=2.0, look_s=0.2),
}


class Blocking(Cscf):
    """A bug: it waits for what never comes."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        threading.Event().wait()
        return super().handle(message, records, now, random)


class Talking(Cscf):
    """No bug of its own."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        for _ in range(1000):
            structlog.get_logger().info(1000 * "x")
        return super().handle(message, records, now, random)


class Miser(MemoryBus):
    """A bug: a consumer that stands still."""

    async def receive(self, limit: int, wait_s: float) -> Sequence[Inbound]:
        del limit
        await asyncio.sleep(wait_s)
        return ()


async def main(how: str, bootstrap: str = "") -> None:
    broker = MemoryBroker(catalogue([]))
    broker.append(Outbound(CSCF.name, 0, b"k", encode(REGISTER)))
    bus: Bus = Miser(broker, "cscf", CSCF.name) if how == "work" else MemoryBus(broker, "cscf", CSCF.name)
    if how == "bus":
        bus = kafka = KafkaBus(KafkaSettings(bootstrap=bootstrap, session_timeout_s=6.0), "cscf", CSCF.name)
        await kafka.start()
    watched = Watched("cscf")
    agent = {"loop": Blocking, "log": Talking}.get(how, Cscf)()
    loop = Loop(
        agent, bus, MemoryStore(), draw_codec(random), clock=clock, random=random, vitals=watched.vitals
    )
    with watching([watched], PATIENCE[how]):
        await loop.run(asyncio.Event())


if __name__ == "__main__":
    logs.configure("json", HARDENED)
    asyncio.run(main(*sys.argv[1:]))
