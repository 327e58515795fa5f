"""A call through real agents without a bus: alice speaks one codec, bob another, a transcoder is between.

What an agent sends is delivered at once, in order, unless a test holds it back; alarms ring when their time
has come.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

from agents.cscf import Cscf, CscfSettings
from agents.decision import Decision
from agents.handset.ue_call import UeSettings, main_of, session_of
from agents.kms import KmsSettings
from agents.transcoder import Transcoder, TranscoderSettings
from agents.ue import Ue
from media.leg import Leg, MediaInstruction, OpenMedia, RenewMedia
from protocol.names import Owner, Permit
from protocol.profile import HARDENED
from protocol.transport import MediaAddress
from storage.cscf_records import Binding, Registration
from storage.transcoder_records import Legs, TranscoderLines
from storage.ue_records import Handset, HandsetKey, UeCall
from tests.agents.scene import ALICE, BOB, NOW, Stage, Town
from topics.messages import Dial, HangUp, Report, Wire

TRANSCODER: Final = "sip:transcoder@ims.example"
TRANSCODE: Final = (Permit.DEFERRED, Permit.TRANSCODE)
DEVICES: Final = {"alice": (ALICE, "alice-1@ims.example"), "bob": (BOB, "bob-1@ims.example")}
LINES: Final = {
    "alice": (MediaAddress("alice", 40_000),),
    "bob": (MediaAddress("bob", 40_000),),
    "one": tuple(MediaAddress("one", 50_000 + line) for line in range(4)),
    "two": tuple(MediaAddress("two", 50_000 + line) for line in range(4)),
}
M = TypeVar("M")


class Between:
    """alice, bob, call control, a KMS, and one process of a transcoder, or two of them in turn."""

    def __init__(
        self,
        *,
        kms: KmsSettings | None = None,
        codecs: tuple[tuple[str, ...], tuple[str, ...]] = (("PCMU",), ("PCMA",)),
        permits: tuple[tuple[Permit, ...], tuple[Permit, ...]] = (TRANSCODE, TRANSCODE),
        transcoder: str = TRANSCODER,
        **changes: Any,
    ) -> None:
        self.town = Town(kms)
        self.town.subscribe("psk:transcoder", TRANSCODER, owner=Owner.TRANSCODER)
        self.now = NOW
        self.sent: list[tuple[int, str, Wire]] = []
        self.media: dict[str, list[MediaInstruction]] = {}
        self.held: list[tuple[str, Wire]] = []
        self.holds: Callable[[Wire], bool] = lambda _: False
        self._queue: deque[tuple[str, Wire]] = deque()
        self._alarms: dict[tuple[str, str], tuple[int, Any]] = {}
        self.stages: dict[str, Stage] = {"kms": self.town}
        self.stages["cscf"] = Stage(Cscf(CscfSettings(transcoder=transcoder)))
        self.settings = self._settings_of("one", **changes)
        self.stages["transcoder"] = Stage(Transcoder(self.settings), seed=2)
        for seed, (name, (identity, impi)), known, permitted in zip(
            (3, 4), DEVICES.items(), codecs, permits, strict=True
        ):
            settings = UeSettings(host=name, lines=LINES[name], codecs=known, permits=permitted)
            self.stages[f"ue.{name}"] = stage = Stage(Ue(HARDENED, settings), seed)
            key = HandsetKey(
                key_id=f"psk:{name}",
                key=self.town.subscriber(f"psk:{name}").key,
                not_after=NOW + 99_999,
                obtained=NOW,
                attached=True,
            )
            stage.put(Handset.key_for(impi), Handset(impi=impi, identity=identity, key=key))
            binding = Binding(host=name, device=impi, not_after=NOW + 99_999)
            self.stages["cscf"].put(Registration.key_for(identity), Registration(bindings=(binding,)))

    def _settings_of(self, instance: str, **changes: Any) -> TranscoderSettings:
        fields: dict[str, Any] = {
            "identity": TRANSCODER,
            "key_id": "psk:transcoder",
            "key": self.town.subscriber("psk:transcoder").key,
            "instance": instance,
            "lines": LINES[instance],
        }
        return TranscoderSettings(**{**fields, **changes})

    def other_process(self, instance: str = "two", **changes: Any) -> None:
        """From now on another process has the partition, and the records."""
        self.stages["transcoder"].agent = Transcoder(self._settings_of(instance, **changes))

    # What happens.

    def give(self, party: str, message: Any) -> Decision:
        """One input; what was decided is written down, and put on its way."""
        stage = self.stages[party]
        decision = stage.give(message, self.now)
        for wake in decision.wakes:
            self._alarms.pop((party, wake.about), None)
            if wake.at is not None:
                self._alarms[party, wake.about] = (wake.at, wake.alarm)
        self.media.setdefault(party, []).extend(decision.media)
        for audit in decision.audit:
            self.sent.append((self.now, "audit", audit))
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
            party, message = self._queue.popleft()
            self.sent.append((self.now, party, message))
            if self.holds(message):
                self.held.append((party, message))
            elif party in self.stages:
                self.give(party, message)

    def let_go(self) -> None:
        """What was held back arrives."""
        self.holds = lambda _: False
        held, self.held = self.held, []
        self._queue.extend(held)
        self.run()

    def wait(self, seconds: int) -> None:
        """Time passes."""
        for _ in range(seconds):
            self.now += 1
            due = [name for name, (at, _) in self._alarms.items() if at <= self.now]
            for party, about in due:
                _, alarm = self._alarms.pop((party, about))
                self.give(party, alarm)
                self.run()

    def call(self) -> None:
        """alice dials bob, who answers at once; SETTLED, and all that follows."""
        self.send("ue.alice", Dial(request=b"r" * 16, to=DEVICES["alice"][1], callee=BOB))

    def hang_up(self, name: str = "alice") -> None:
        call = self.ue_call(name)
        self.send(f"ue.{name}", HangUp(to=call.device, caller=ALICE, call=call.run.call))

    # What is there.

    def of(self, kind: type[M], party: str | None = None) -> list[M]:
        """All messages of this kind so far, to this party."""
        found = (message for _, to, message in self.sent if party in {None, to})
        return [message for message in found if isinstance(message, kind)]

    def reports(self, name: str) -> list[str]:
        """What this device has told, each with its reason."""
        told = [each for each in self.of(Report) if each.device == DEVICES[name][1]]
        return [" ".join(filter(None, (each.event, each.check, each.reason))) for each in told]

    def ue_call(self, name: str) -> UeCall:
        """The one call that this device has, apart from its renewal."""
        records = self.stages[f"ue.{name}"].records.values()
        calls = [record for record in records if isinstance(record, UeCall)]
        [call] = [each for each in calls if main_of(each.session) == each.session]
        return call

    def session(self, name: str) -> str:
        call = self.ue_call(name)
        return session_of(call.device, ALICE, call.run.call)

    @property
    def legs(self) -> Legs:
        [legs] = [each for each in self.stages["transcoder"].records.values() if isinstance(each, Legs)]
        return legs

    def lines(self, instance: str = "one") -> list[str | None]:
        """Which bridge each line of a process has."""
        record = self.stages["transcoder"].records.get(TranscoderLines.key_for(instance).name)
        assert isinstance(record, TranscoderLines)
        return [user and user[0] for user in record.users]

    def opened(self, party: str) -> list[Leg]:
        """The legs of all media that this party has opened or renewed."""
        return [each.leg for each in self.media.get(party, []) if isinstance(each, OpenMedia | RenewMedia)]
