"""A call through real agents without a bus: alice and the devices of bob, call control, a KMS and its
custodian; each with a clock of its own, and a network that does what a test wants.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

from agents.cscf import Cscf
from agents.custodian import Custodian
from agents.decision import Decision
from agents.handset.ue_call import UeSettings, renewal_of, session_of
from agents.kms import KmsSettings
from agents.ue import Ue
from media.leg import MediaInstruction
from protocol.profile import HARDENED
from protocol.transport import MediaAddress
from storage.cscf_records import Binding, Registration
from storage.ue_records import Handset, HandsetKey, UeCall
from tests.agents.scene import ALICE, BOB, NOW, Stage, Town
from topics.messages import Audit, Dial, HangUp, OfRun, Report, Wire

LIFE_S: Final = 600
IDENTITIES: Final = {"alice": ALICE, "bob": BOB, "bob2": BOB}
M = TypeVar("M")
Network = Callable[[str, Wire], Iterable[Wire]]
"""What arrives at a party of what was sent to it."""


def sound(_: str, message: Wire) -> Iterable[Wire]:
    """All of it."""
    return (message,)


def losing(*kinds: type[OfRun], later: bool = False, to: str = "") -> Network:
    """All but these. later: only those of later runs are lost. to: at parties whose name begins so."""

    def network(party: str, message: Wire) -> Iterable[Wire]:
        is_lost = isinstance(message, kinds) and (message.run > 0 or not later) and party.startswith(to)
        return () if is_lost else (message,)

    return network


class Pair:
    """A call that begins at NOW. behind: for each party how many seconds its clock is behind."""

    def __init__(
        self, *, life_s: int = LIFE_S, behind: dict[str, int] | None = None, rings: tuple[str, ...] = ("bob",)
    ) -> None:
        self.town = Town(KmsSettings(life_s=life_s))
        self.now = NOW
        self.sent: list[tuple[int, str, Wire]] = []  # when, to whom
        self.media: dict[str, list[MediaInstruction]] = {}
        self.audit: list[Audit] = []
        self.network: Network = sound
        self.order: random.Random | None = (
            None  # in which messages arrive; as they were sent where there is none
        )
        self._behind = behind or {}
        self._queue: list[tuple[str, Wire]] = []
        self._alarms: dict[tuple[str, str], tuple[int, Any]] = {}
        custodian = Stage(Custodian())
        custodian.records = self.town.records
        self.stages: dict[str, Stage] = {"kms": self.town, "orders": custodian, "cscf": Stage(Cscf())}
        for name in ("alice", *rings):
            self._add(name)

    def _add(self, name: str) -> None:
        settings = UeSettings(host=name, lines=(MediaAddress(name, 40_000),))
        self.stages[f"ue.{name}"] = stage = Stage(Ue(HARDENED, settings), seed=len(self.stages))
        stage.put(Handset.key_for(impi(name)), self.handset(name))
        key, cscf = Registration.key_for(IDENTITIES[name]), self.stages["cscf"]
        known = cscf.records.get(key.name) or Registration()
        assert isinstance(known, Registration)
        binding = Binding(host=name, device=impi(name), not_after=NOW + 99_999)
        cscf.put(key, Registration(bindings=(*known.bindings, binding)))

    def handset(self, name: str, key_id: str = "") -> Handset:
        """This device with a key that the KMS has."""
        subscriber = self.town.subscriber(key_id or f"psk:{name}")
        key = HandsetKey(
            key_id=subscriber.key_id,
            key=subscriber.key,
            not_after=NOW + 99_999,
            obtained=NOW,
            attached=True,
        )
        return Handset(impi=impi(name), identity=IDENTITIES[name], key=key)

    def rekey(self, name: str, key_id: str) -> None:
        """The device has another key id from now on."""
        self.town.subscribe(key_id, IDENTITIES[name], impi=impi(name))
        self.stages[f"ue.{name}"].put(Handset.key_for(impi(name)), self.handset(name, key_id))

    # What happens.

    def give(self, party: str, message: Any) -> Decision:
        """One input; what was decided is written down, and put on its way."""
        clock = self.now - self._behind.get(party, 0)
        decision = self.stages[party].give(message, clock)
        for wake in decision.wakes:
            self._alarms.pop((party, wake.about), None)
            if wake.at is not None:
                self._alarms[party, wake.about] = (wake.at + self._behind.get(party, 0), wake.alarm)
        self.media.setdefault(party.removeprefix("ue."), []).extend(decision.media)
        self.audit.extend(decision.audit)
        for send in decision.sends:
            self._queue.append((send.topic.name.removeprefix("ims."), send.message))
        return decision

    def send(self, party: str, message: Wire) -> None:
        """Somebody sends this; all that follows from it happens."""
        self._queue.append((party, message))
        self.run()

    def run(self) -> None:
        """Deliver until nothing is under way."""
        while self._queue:
            party, message = self._queue.pop(self.order.randrange(len(self._queue)) if self.order else 0)
            for arrives in self.network(party, message):
                self.sent.append((self.now, party, arrives))
                if party in self.stages:
                    self.give(party, arrives)

    def wait(self, seconds: int) -> None:
        """Time passes; alarms ring when theirs has come."""
        end = self.now + seconds
        while self.now < end:
            due = [at for at, _ in self._alarms.values()]
            self.now = max(self.now + 1, min([end, *due]))
            for (party, about), (at, alarm) in list(self._alarms.items()):
                if at <= self.now and self._alarms.get((party, about)) == (at, alarm):
                    del self._alarms[party, about]
                    self.give(party, alarm)
                    self.run()

    def up(self) -> Pair:
        """alice dials bob, who answers at once; SETTLED, and all that follows."""
        self.send("ue.alice", Dial(request=b"r" * 16, to=impi("alice"), callee=BOB))
        return self

    def hang_up(self, name: str) -> None:
        self.send(f"ue.{name}", HangUp(to=impi(name), caller=ALICE, call=self.call_id))

    # What is there.

    @property
    def call_id(self) -> bytes:
        [call] = {message.call for _, _, message in self.sent if isinstance(message, OfRun)}
        return call

    def call(self, name: str) -> UeCall:
        record = self.stages[f"ue.{name}"].records[UeCall.key_for(self.session(name)).name]
        assert isinstance(record, UeCall)
        return record

    def renewal(self, name: str) -> UeCall | None:
        """What is on its way to take the call's place."""
        records = self.stages[f"ue.{name}"].records
        record = records.get(UeCall.key_for(renewal_of(self.session(name))).name)
        assert record is None or isinstance(record, UeCall)
        return record

    def session(self, name: str) -> str:
        return session_of(impi(name), ALICE, self.call_id)

    def of(self, kind: type[M], party: str | None = None) -> list[M]:
        """All messages of this kind that have come to this party."""
        found = (message for _, to, message in self.sent if party in {None, to})
        return [message for message in found if isinstance(message, kind)]

    def reports(self, name: str) -> list[str]:
        """What this device has told: n, what, by which check, why."""
        told = [each for each in self.of(Report) if each.device == impi(name)]
        return [" ".join(filter(None, (str(each.run), each.event, each.check, each.reason))) for each in told]

    def runs(self) -> tuple[int, int]:
        """Under which n alice and bob are."""
        return self.call("alice").run.n, self.call("bob").run.n


def impi(name: str) -> str:
    return f"{name}@ims.example"
