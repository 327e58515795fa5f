"""Whole calls to a user with two devices, as golden transcripts: each device has a K of its own, and only the
one that the caller has taken shares it with her. `pytest --rewrite` writes them anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from chaos.faults import Faults
from chaos.invariants import DESTROYED_WITHIN_S
from chaos.simulator import World
from protocol.limits import RING_S
from storage.kms_records import AgreedRun, Agreement
from storage.records import Key
from tests.agents.test_transcripts import GOLDEN, TALK_S
from tests.agents.transcript import Transcript
from topics.bus import Outbound
from topics.codec import decode
from topics.messages import Ack, Bye, ByeOk, HangUp, Invite, Message, OfRun, Ok, Register, Report

DIALLED_S = 5.0
RINGS = 30  # seconds until a device answers that others shall overtake


def second_registers_second(message: Message) -> float:
    """So that the order of bob's devices does not hang on what is drawn."""
    return 0.5 if isinstance(message, Register) and message.sender.host == "bob-2" else 0.0


class Fork(World):
    """alice calls bob, who has two devices and no mailbox."""

    def __init__(
        self, bob: int, bob_2: int, late_s: Callable[[Message], float] = second_registers_second
    ) -> None:
        """bob, bob_2: after how many seconds each answers. late_s: how much longer than others a message is
        on its way."""
        self._late_s = late_s
        answers = {"alice": 0, "bob": bob, "bob-2": bob_2}
        super().__init__(1, Faults(), names=tuple(answers), answer_after_s=answers.get, mailbox=False)
        self.at(DIALLED_S, lambda: self.dial("alice", "bob"))

    def _transmit(self, record: Outbound) -> None:
        late_s = self._late_s(decode(record.value))
        if late_s:
            self.at(self.time + late_s, lambda: super(Fork, self)._transmit(record))
        else:
            super()._transmit(record)

    def refuse(self, name: str) -> None:
        """The user of this device hangs up before the call has come up."""
        invite = next(message for _, _, message in self.messages() if isinstance(message, Invite))
        device = self.device(name)
        self.tell_host(name, HangUp(to=device.impi, caller=invite.caller, call=invite.call))

    def ends(self, when: float = TALK_S, until: float = 60.0) -> Fork:
        """alice hangs up what she talks on."""
        self.at(when, lambda: self.hang_up("alice"))
        self.run_until(until)
        return self

    @property
    def agreed(self) -> AgreedRun:
        """What the KMS has of the one call."""
        [(name, value)] = [item for item in self.network.items() if ":agreement:" in item[0]]
        [run] = self.codec.decode(Key(name, Agreement), value).runs
        return run


class ForkTranscript(Transcript):
    """With F wherever it is said, and with all who held a K, in a call or only while they rang."""

    def _inside(self, message: OfRun, now: int) -> Iterator[str]:
        if isinstance(message, Ack | Bye | ByeOk) and message.fork is not None:
            yield self._names.of(message.fork, "F#")
        yield from super()._inside(message, now)

    def _report(self, report: Report) -> str:
        name = "" if report.fork is None else f" {self._names.of(report.fork, 'F#')}"
        return super()._report(report) + name

    def _held(self) -> str:
        held = [
            f"{', '.join(sorted(hosts))} held {self._names.of(key.reveal(), 'K#')}"
            for key, hosts in self._world.observer.held.items()
        ]
        return "; ".join(sorted(held, key=lambda line: line.rpartition(" ")[2]))


def one_answers() -> Fork:
    return Fork(3, RINGS).ends()


def both_in_the_same_instant() -> Fork:
    return Fork(0, 0).ends()


def answer_crosses_cancel() -> Fork:
    def late_s(message: Message) -> float:
        first = isinstance(message, Ok) and message.sender is not None and message.sender.host == "bob-2"
        return 0.005 if first else second_registers_second(message)

    return Fork(0, 0, late_s).ends()


def caller_hangs_up() -> Fork:
    world = Fork(RINGS, RINGS)
    world.at(9.0, lambda: world.refuse("alice"))
    return world.ends()


def one_declines() -> Fork:
    world = Fork(RINGS, 4)
    world.at(6.5, lambda: world.refuse("bob"))
    return world.ends()


def all_decline() -> Fork:
    world = Fork(RINGS, RINGS)
    world.at(6.5, lambda: world.refuse("bob"))
    world.at(8.5, lambda: world.refuse("bob-2"))
    return world.ends()


def one_dies() -> Fork:
    world = Fork(RINGS, 4)
    world.at(7.5, lambda: world.crash(world.member("bob"), back_after_s=8.0))
    return world.ends()


ANSWERED: dict[str, tuple[Callable[[], Fork], str]] = {
    "fork-one-answers": (one_answers, "bob"),
    "fork-same-instant": (both_in_the_same_instant, "bob"),
    "fork-answer-crosses-cancel": (answer_crosses_cancel, "bob"),
    "fork-one-declines": (one_declines, "bob-2"),
    "fork-one-dies": (one_dies, "bob-2"),
}
NOT_ANSWERED: dict[str, Callable[[], Fork]] = {
    "fork-caller-hangs-up": caller_hangs_up,
    "fork-all-decline": all_decline,
}


def compare(name: str, world: Fork, request: pytest.FixtureRequest) -> None:
    """The transcript is the golden one."""
    text = "\n".join(ForkTranscript(world).lines()) + "\n"
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--rewrite"):
        path.write_text(text)
    assert path.read_text() == text


@pytest.mark.parametrize("name", ANSWERED)
def test_one_device_takes_the_call(name: str, request: pytest.FixtureRequest) -> None:
    make, winner = ANSWERED[name]
    world = make()
    run = world.agreed
    kept = [fork for fork in run.forks if fork.key is not None]
    assert [fork.name for fork in kept] == [run.settled], "the KMS has K of the winner and of nobody else"
    assert len(run.forks) == 2
    assert [world.observer.hosts_of_keys[fork.callee_key] for fork in kept] == [winner]
    shared = {key for key, hosts in world.observer.held.items() if "alice" in hosts}
    assert [world.observer.held[key] for key in shared] == [{"alice", winner}]
    assert len(world.observer.held) == 2, "each device had a K of its own"
    compare(name, world, request)


@pytest.mark.parametrize("name", NOT_ANSWERED)
def test_no_device_takes_the_call(name: str, request: pytest.FixtureRequest) -> None:
    world = NOT_ANSWERED[name]()
    assert world.agreed.settled is None
    assert sorted(map(sorted, world.observer.held.values())) == [["bob"], ["bob-2"]]
    compare(name, world, request)
    world.run_until(DIALLED_S + RING_S + DESTROYED_WITHIN_S)
    assert [fork.key for fork in world.agreed.forks] == [None, None], "nobody has taken it: its Ks end early"
