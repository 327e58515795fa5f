"""The simulator finds broken conferences, renewals and transcoders: each mutant is caught by some seed, and
the same trouble without it by none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from agents.conference import Focus
from agents.decision import Decision, Input, Records
from agents.focus import changing
from agents.granting import grouping, membership, releasing
from agents.granting.hearing import Hearing
from agents.handset import noticing, ue_attendance
from agents.kms import Kms
from chaos.faults import Cast, Faults
from protocol import conference, transcoding
from protocol.checks import Refused
from protocol.encoding import dec_body, digest
from protocol.evidence import EpochGrant, Holder, MemberToken
from protocol.names import Permit, Role, Run, Suite
from protocol.profile import HARDENED
from protocol.sealing import Random, SealBroken, down
from protocol.secret import Secret
from storage.focus_records import ChangeKind, Wanted
from storage.kms_records import AgreedRun, Agreement, Group
from tests.chaos.seeds import assert_clean, assert_found
from topics.messages import GroupRequest

CONFERENCE = Faults(conference=True, calls=0)
LATE = Faults(conference=True, calls=0, duplicate=0.5, delay_s=8.0, crashes=2)
FORGED = Faults(conference=True, calls=0, forge=0.5)
FOREIGN = Faults(foreign=True, calls=3, duplicate=0.5, delay_s=4.0, crashes=4)
RENEWED = Faults(calls=3, life_s=30, insider=1.0)


class Derived(Kms):
    """K_e follows from the last one."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        if not isinstance(message, GroupRequest):
            return super().handle(message, records, now, random)
        known = records.get(Group.key_for(message.focus, message.group))
        if known is None or known.key is None:
            return super().handle(message, records, now, random)
        after = digest(known.key.reveal())
        return super().handle(message, records, now, lambda n: after if n == len(after) else random(n))


class Mole(Focus):
    """A corrupt focus, which asks for somebody who has not asked to be in."""

    def handle(self, message: Input, records: Records, now: int, random: Random) -> Decision:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(changing, "_ask_for", _with_a_stranger(changing._ask_for))
            return super().handle(message, records, now, random)


def _with_a_stranger(ask_for: Callable[..., None]) -> Callable[..., None]:
    def ask(turn: Any, changes: tuple[Wanted, ...], random: Random) -> None:
        known = next((each for each in changes if each.kind is ChangeKind.JOIN), None)
        if known is not None and not turn.conference.asked:  # what is refused is not tried again
            changes = (*changes, msgspec.structs.replace(known, call=random(16), sealed=random(64)))
        ask_for(turn, changes, random)

    return ask


def any_token(holder: Holder, run: Run, group: bytes, sealed: bytes) -> MemberToken:
    """A KMS that believes the focus when a token does not open (against OR-04)."""
    try:
        return conference.open_member_token(holder, run, group, sealed)
    except Refused:
        nonce = digest(sealed)[:16]
        return MemberToken(*run.clear, nonce, 1_800_000_000, (Permit.CONFERENCE,), bytes(32), group)


def short_roster(focus: str, group: Group) -> tuple[str, ...]:
    """What members are told is what the focus would have them believe: one of them is not named."""
    names = tuple(sorted([*(member.identity for member in group.members), focus]))
    return names[1:] if len(group.members) > 1 else names


def any_serial(*arguments: Any, **named: Any) -> Any:
    """A handset that takes an old notice again (against OR-27)."""
    return transcoding.open_notice(*arguments, **{**named, "serial_taken": -1})


def any_epoch(*arguments: Any, **named: Any) -> Any:
    """A handset that takes an old epoch again (against OR-29)."""
    return conference.open_epoch_grant(*arguments, **{**named, "epoch_taken": 0})


def any_nonce(holder: Holder, suite: Suite, sealed: bytes, **named: Any) -> EpochGrant:
    """A member that does not look for its own nonce in a grant (against OR-21)."""
    about = (named["group"], named["epoch"], named["focus"], named["member"])
    context = (*about, holder.key_id, digest(named["token_g"]))
    try:
        body = down(holder.key, suite, Role.MEMBER).unseal("grant-g", context, sealed)
        named["nonce"] = dec_body(body, EpochGrant).nonce
    except SealBroken:
        pass
    return conference.open_epoch_grant(holder, suite, sealed, **named)


def any_device(
    hearing: Hearing, agreement: Agreement, agreed: AgreedRun | None, devices: tuple[Any, Any]
) -> None:
    """A KMS that renews with whichever device of the callee asks (against OR-15)."""
    del hearing, agreement, agreed, devices


def k_itself(key: Secret, run: Run, fork: bytes, transcoder: str, identity: str) -> Secret:
    """A KMS that hands K to the transcoder."""
    del run, fork, transcoder, identity
    return key


def stays(*_: object, **__: object) -> None:
    """A leave that the KMS has read, and that changes nothing."""


KMS_DERIVES = Cast(kms=lambda: Derived(HARDENED))


def test_an_epoch_that_follows_from_the_last_one_is_found() -> None:
    assert_found(KMS_DERIVES, "was not drawn", CONFERENCE)


def test_a_roster_that_is_not_the_kms_s_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "roster_of", short_roster)
    assert_found(Cast(), "was told another roster", CONFERENCE)


def test_who_is_let_in_without_a_token_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "open_member_token", any_token)
    assert_found(Cast(focus=Mole), "has not asked to be", CONFERENCE)


def test_a_corrupt_focus_lets_nobody_in() -> None:
    assert_clean(Cast(focus=Mole), CONFERENCE, 20)


def test_a_leaver_whose_key_goes_on_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership.Membership, "_leave", stays)
    assert_found(Cast(), "has gone, and is in epoch", CONFERENCE)


def test_an_epoch_that_outlives_a_leaver_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changing, "ask", only_joins(changing.ask))
    assert_found(Cast(), "and has gone", CONFERENCE)


def only_joins(ask: Callable[..., None]) -> Callable[..., None]:
    def asks(turn: Any, random: Random) -> None:
        turn.change(queue=tuple(each for each in turn.conference.queue if each.kind is ChangeKind.JOIN))
        ask(turn, random)

    return asks


def test_or_29_an_old_epoch_that_is_taken_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ue_attendance, "open_epoch_grant", any_epoch)
    assert_found(Cast(), "took epoch", LATE)


def test_or_21_a_grant_for_another_join_that_is_taken_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ue_attendance, "open_epoch_grant", any_nonce)
    assert_found(Cast(), "a K_e that the KMS has no record of", FORGED)


def test_or_27_an_old_notice_that_is_taken_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noticing, "open_notice", any_serial)
    assert_found(Cast(), "has taken an old notice", FOREIGN)


def test_leg_keys_that_are_k_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(releasing, "leg_key", k_itself)
    assert_found(Cast(), "a transcoder holds K", FOREIGN)


def test_or_15_another_device_that_answers_a_renewal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hearing, "_renews", any_device)
    assert_found(Cast(), "was granted to other devices", RENEWED)


@pytest.mark.parametrize("faults", [CONFERENCE, LATE, FORGED, FOREIGN, RENEWED])
def test_without_a_mutant_nothing_is_found(faults: Faults) -> None:
    assert_clean(Cast(), faults, 25)
