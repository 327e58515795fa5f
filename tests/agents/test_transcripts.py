"""Golden transcripts: whole calls, the same each time. `pytest --rewrite` writes them anew."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from agents.kms import Kms, KmsSettings
from chaos.faults import Cast, Faults
from chaos.simulator import World
from protocol.limits import RING_S, TOKEN_AGE_S
from protocol.names import Suite
from protocol.profile import HARDENED, LITERAL, Profile
from tests.agents.between import Between
from tests.agents.scene import EVE, NOW, Town
from tests.agents.test_ue_checks import change_field, zeros
from tests.agents.transcript import Transcript
from topics.bus import Outbound
from topics.codec import decode, encode
from topics.messages import Invite, KeyRequest, Message, Ok, Refusal

GOLDEN = Path(__file__).with_name("transcripts")
TALK_S = 20.0


def world(
    *,
    cast: Cast | None = None,
    change: Callable[[World, Message], Message] | None = None,
    answer_after_s: int | None = 0,
    callee: str = "bob",
    hang_up_at: float | None = TALK_S,
    until: float = 40.0,
    profile: Profile = HARDENED,
) -> list[str]:
    """A call of alice at 5 s that she ends at 20 s."""

    def tamper(record: Outbound) -> Outbound:
        if change is None:
            return record
        changed = change(made, decode(record.value))
        return Outbound(record.topic, record.partition, record.key, encode(changed), record.headers)

    names = ("alice", "bob")
    made = World(
        1, Faults(), cast, names=names, answer_after_s=lambda _: answer_after_s, mailbox=False, tamper=tamper
    )
    made.at(5.0, lambda: made.dial("alice", callee))
    if hang_up_at is not None:
        made.at(hang_up_at, lambda: made.hang_up("alice"))
    made.run_until(until)
    return list(Transcript(made, profile).lines())


def message(*, collecting: bool) -> list[str]:
    """Bob is away; alice leaves a message at 5 s. He comes back, and collects it; or she takes it back."""
    made = World(1, Faults(), names=("alice", "bob"))
    made.at(3.0, lambda: made.crash(made.member("bob"), back_after_s=30.0))
    made.at(5.0, lambda: made.dial("alice", "bob"))
    made.at(TALK_S, lambda: made.hang_up("alice"))
    made.at(40.0, lambda: made.collect("bob") if collecting else made.take_back("alice"))
    made.run_until(45.0)
    return list(Transcript(made).lines())


def transcoded() -> list[str]:
    """alice speaks PCMU, bob PCMA; a transcoder is between, and another instance of it takes over at 4 s."""
    between = Between()
    between.call()
    between.wait(3)
    between.other_process()
    between.wait(4)
    between.hang_up()
    keys = {
        f"psk:{name}": between.town.subscriber(f"psk:{name}").key for name in ("alice", "bob", "transcoder")
    }
    seen = SimpleNamespace(
        messages=lambda: [
            (float(now - NOW), SimpleNamespace(topic=f"ims.{to}"), message)
            for now, to, message in between.sent
        ],
        observer=SimpleNamespace(keys=keys),
        sessions=[
            SimpleNamespace(
                openings=[
                    SimpleNamespace(leg=leg, host=party.removeprefix("ue.")) for leg in between.opened(party)
                ],
                listenings=[],
            )
            for party in ("ue.alice", "ue.bob", "transcoder")
        ],
    )
    return list(Transcript(cast("World", seen)).lines())


def never_renewed(made: World, message: Message) -> Message:
    """What is asked for later runs opens nowhere."""
    later = isinstance(message, Invite) and message.run > 0
    return change_field(Invite, "token_a", zeros)(made, message) if later else message


def kms(settings: KmsSettings) -> Cast:
    return Cast(kms=lambda: Kms(HARDENED, settings))


CALLS: dict[str, Callable[[], list[str]]] = {
    "answered": world,
    "answered-after-ringing": lambda: world(answer_after_s=3),
    "declined": lambda: world(answer_after_s=None),
    "no-answer": lambda: world(answer_after_s=170, hang_up_at=None, until=80.0),
    "transcoded-call": transcoded,
    "message-heard": lambda: message(collecting=True),
    "message-taken-back": lambda: message(collecting=False),
    "renewal": lambda: world(cast=kms(KmsSettings(life_s=60)), hang_up_at=50.0, until=60.0),
    "expired": lambda: world(
        cast=kms(KmsSettings(life_s=40)), change=never_renewed, hang_up_at=None, until=80.0
    ),
    "refused-denied": lambda: world(change=change_field(Invite, "token_a", zeros)),
    "refused-unsupported": lambda: world(cast=kms(KmsSettings(suites=frozenset({Suite.CHACHA20_POLY1305})))),
    "refused-too-many": lambda: world(cast=kms(KmsSettings(key_requests_per_s=0))),
    "refused-by-the-caller": lambda: world(change=change_field(Ok, "confirm_b", zeros)),
    "token-b-changed": lambda: world(change=change_field(KeyRequest, "token_b", zeros)),
    "literal": lambda: world(cast=Cast(kms=lambda: Kms(LITERAL), ue_profile=LITERAL), profile=LITERAL),
}


def refusals() -> list[str]:
    """Each reason once: what bob asks, what the audit learns, what he is told."""
    found = []

    def tell(why: str, town: Town, request: Message, now: int = NOW) -> None:
        decision = town.give(request, now)
        [refusal] = [send.message for send in decision.sends if isinstance(send.message, Refusal)]
        [audit] = decision.audit
        how = "sealed" if refusal.sealed else "unsealed"
        found.append(f"{why:44} kms notes {audit.check}, tells {refusal.code} ({how})")

    town = Town(KmsSettings(suites=frozenset({Suite.CHACHA20_POLY1305})))
    tell("a suite that the KMS does not allow", town, town.request())
    town = Town()
    town.change("psk:bob", not_after=NOW - 1)
    tell("bob's key id has ended", town, town.request())
    town = Town()
    town.change("psk:alice", identities=(EVE,))
    tell("alice's key id is not alice's", town, town.request())
    town = Town()
    tell("token_a is old", town, town.request(body_a=town.body(town.run(), time=NOW - TOKEN_AGE_S - 1)))
    town = Town()
    first = town.request()
    town.give(first)
    tell("a second token_a for the run", town, town.request())
    tell("a second token_b of bob's", town, town.request(token_a=first.token_a))
    tell("the same once more, after RING_S", town, first, NOW + RING_S + 1)
    town = Town()
    tell("a renewal of what was never granted", town, town.request(town.run(n=1)))
    town = Town(KmsSettings(key_requests_per_s=0))
    tell("too many requests", town, town.request())
    town = Town()
    tell("the identities differ", town, town.request(body_a=town.body(town.run(caller=EVE))))
    tell("an unknown key id", town, msgspec.structs.replace(town.request(), callee_key="psk:nobody"))
    tell("SETTLED for nothing", town, town.settled(town.request(), bytes(8)))
    return found


CALLS["refusals"] = refusals


@pytest.mark.parametrize("name", CALLS)
def test_transcript(name: str, request: pytest.FixtureRequest) -> None:
    text = "\n".join(CALLS[name]()) + "\n"
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--rewrite"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text
