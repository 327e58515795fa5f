"""A focus and a KMS in their loops, over a bus and stores: 250 ms, a batch, and a process that takes over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agents.conference import Focus, FocusSettings
from agents.decision import Agent
from agents.kms import Kms
from agents.runtime import Loop
from chaos.lab import draw_codec
from media.leg import CloseMedia, MediaInstruction, OpenMedia, RenewMedia
from protocol.names import Owner
from protocol.profile import HARDENED
from protocol.sharding import shard_of
from storage.memory import MemoryStore
from storage.records import Key
from storage.store import NO_VERSION, Change, StoredPut
from tests.agents.hall import FOCUS, GROUP, LINES, REQUEST, Guest
from tests.agents.scene import NOW, Town
from topics.bus import Outbound
from topics.catalogue import CONFERENCE, KMS, Topic, catalogue, ue_inbox
from topics.codec import decode, encode
from topics.memory import MemoryBroker, MemoryBus
from topics.messages import CreateConference, Joined, Rekey, Wire

USERS: Final = ("ann", "ben")


class Running:
    """Loops with one clock, which the test sets."""

    def __init__(self) -> None:
        self.now, self.time = NOW, 0.0
        self.broker = MemoryBroker(catalogue(USERS))
        self.town = Town()
        self.town.subscribe("psk:focus", FOCUS, owner=Owner.FOCUS)
        self.guests = [self._guest(user) for user in USERS]
        self.codec = draw_codec(self.town.random)
        self.store = MemoryStore()
        self.media: dict[str, list[MediaInstruction]] = {"one": [], "two": []}
        self.loops: dict[str, Loop] = {}
        self.buses: dict[str, MemoryBus] = {}

    def _guest(self, user: str) -> Guest:
        self.town.subscribe(f"psk:{user}", f"sip:{user}@ims.example")
        return Guest(self.town, user, user.encode().ljust(16, b"_"), f"psk:{user}")

    async def start(self) -> None:
        puts = [
            StoredPut(name, NO_VERSION, bytes(16), self.codec.encode(Key(name, type(record)), record))
            for name, record in self.town.records.items()
        ]
        assert await self.store.write([Change(puts)]) == [True]
        self._run("kms", Kms(HARDENED), KMS)
        self.focus("one")

    def focus(self, instance: str) -> None:
        key = self.town.subscriber("psk:focus").key
        settings = FocusSettings(
            identity=FOCUS, key_id="psk:focus", key=key, instance=instance, lines=LINES[:4]
        )
        self._run(instance, Focus(settings), CONFERENCE, self.media[instance].append)

    def _run(
        self,
        name: str,
        agent: Agent,
        inbox: Topic,
        carry_out: Callable[[MediaInstruction], None] | None = None,
    ) -> None:
        self.buses[name] = MemoryBus(self.broker, agent.party, inbox.name)
        self.loops[name] = Loop(
            agent,
            self.buses[name],
            self.store,
            self.codec,
            clock=lambda: self.now,
            random=self.town.random,
            carry_out=carry_out,
            monotonic=lambda: self.time,
        )

    def say(self, message: Wire) -> None:
        key = GROUP.hex()
        self.broker.append(Outbound(CONFERENCE.name, shard_of(key), key.encode(), encode(message)))

    async def steps(self, seconds: float = 0.0) -> None:
        """So much time passes; then all loops turn until there is nothing to do."""
        self.time += seconds
        self.now = NOW + int(self.time)
        for _ in range(12):
            for loop in list(self.loops.values()):
                await loop.step(0)

    def heard(self, user: str) -> list[object]:
        return [decode(record.value or b"") for record in self.broker.records(ue_inbox(user).name)]

    def answer(self) -> None:
        """Each guest takes what has come."""
        for guest in self.guests:
            for message in self.heard(guest.user):
                if isinstance(message, Joined | Rekey):
                    self.say(guest.take(message, self.now))


async def test_a_batch_after_250_ms_and_another_process_that_goes_on() -> None:
    running = Running()
    await running.start()
    running.say(CreateConference(group=GROUP, focus=FOCUS, request=REQUEST))
    for guest in running.guests:
        running.say(guest.join())
    await running.steps(0.1)
    await running.steps(0.2)
    assert not running.heard("ann"), "changes are gathered"
    await running.steps(0.1)
    [joined] = running.heard("ann")
    assert isinstance(joined, Joined)
    running.answer()
    await running.steps()
    ann, ben = running.guests
    assert (ann.taken, ben.taken) == (1, 1)
    assert ann.grants[0].key == ben.grants[0].key
    assert len([each for each in running.media["one"] if isinstance(each, OpenMedia)]) == 2

    del running.loops["one"]  # it turns no more: its partitions go to another one
    await running.buses["one"].stop()
    running.focus("two")
    for _ in range(4):
        await running.steps(1.0)
    taken = [each.leg for each in running.media["two"] if isinstance(each, RenewMedia)]
    opened = [leg for leg in taken if leg.n == 1]
    assert {leg.remote for leg in opened} == {guest.identity for guest in running.guests}
    assert {leg.n for leg in taken} == {1, 2}, "another epoch was asked for, since SSRCs were drawn anew"
    assert isinstance(running.heard("ann")[-1], Rekey)
    running.answer()
    assert (ann.taken, ben.taken) == (2, 2)
    running.say(ben.leave())
    await running.steps(0.1)
    await running.steps(0.3)
    running.answer()
    assert (ann.taken, ben.taken) == (3, 2)
    [session] = [leg.session for leg in opened if leg.remote == ben.identity]
    assert CloseMedia(session) in running.media["two"]
