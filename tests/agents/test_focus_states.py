"""What may come to a conference, here, elsewhere and ended: the table, and that all else changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from agents import alarms
from agents.alarms import BatchAlarm, ConferenceAlarm, RekeyAlarm, StillMine
from agents.conference import EXPECTED, Focus, Standing
from agents.decision import NOTHING
from media.leg import Speakers
from protocol.checks import RefusalCode
from storage.focus_records import Conference
from tests.agents.hall import ABOUT, FOCUS, GROUP, REQUEST, Hall
from tests.agents.scene import NOW
from topics import messages
from topics.messages import (
    CreateConference,
    EndConference,
    GroupGrant,
    GroupHint,
    GroupRefusal,
    GroupResponse,
    RemoveMember,
    ShowConference,
)


def here(hall: Hall) -> None:
    assert hall.conference.instance == "one"


def elsewhere(hall: Hall) -> None:
    hall.process("two")


STATES: Final[dict[Standing, Callable[[Hall], object]]] = {
    Standing.HERE: here,
    Standing.ELSEWHERE: elsewhere,
    Standing.ENDED: lambda hall: hall.end(),
}


def inputs(hall: Hall) -> dict[str, Any]:
    """One of each kind, of or about ann, who is in; one of somebody who is not."""
    ann = next(iter(hall.guests.values()))
    session = f"{GROUP.hex()} {ann.identity} {ann.call.hex()}"
    every = (
        hall.guest("new").join(),
        ann.in_use(1),
        ann.leave(1),
        GroupResponse(epoch=2, grant_c=bytes(60), **ABOUT),
        GroupGrant(epoch=1, member=ann.identity, grant=bytes(60), **ABOUT),
        GroupRefusal(epoch=2, code=RefusalCode.DENIED, sealed=None, **ABOUT),
        GroupHint(**ABOUT),
        CreateConference(group=GROUP, focus=FOCUS, request=REQUEST),
        RemoveMember(member=ann.identity, request=REQUEST, **ABOUT),
        ShowConference(request=REQUEST, **ABOUT),
        EndConference(request=REQUEST, **ABOUT),
        ConferenceAlarm(GROUP),
        BatchAlarm(GROUP),
        StillMine(GROUP),
        RekeyAlarm(GROUP, ann.identity),
        Speakers(GROUP.hex(), (session,)),
        # what has no meaning for a focus
        messages.Joined(
            call=ann.call,
            member=ann.identity,
            epoch=1,
            grant=bytes(60),
            answer=b"\xc0",
            media=ann.join().media,
            to="x",
            **ABOUT,
        ),
        messages.LeaveOk(call=ann.call, member=ann.identity, to="x", **ABOUT),
        messages.WithdrawMember(key_id="psk:ann", **ABOUT),
        alarms.EpochEnds(FOCUS, GROUP),
    )
    return {type(each).__name__: each for each in every}


def met() -> Hall:
    hall = Hall(quiet=True)
    ann, _ = hall.meet("ann", "ben")
    ann.taken = 1
    return hall


KINDS: Final = tuple(inputs(met()))


def test_the_table_has_every_state_and_names_what_comes_only() -> None:
    assert set(EXPECTED) == set(STATES) == set(Standing)
    named = set().union(*EXPECTED.values())
    assert {kind.__name__ for kind in named} <= set(KINDS)
    own = {ConferenceAlarm, BatchAlarm, StillMine, RekeyAlarm, Speakers}
    assert Focus.accepts == named - own


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", KINDS)
def test_or_26_what_the_table_does_not_name_changes_nothing(state: Standing, kind: str) -> None:
    hall = met()
    STATES[state](hall)
    focus = hall.stage.agent
    assert isinstance(focus, Focus)
    assert focus.standing(hall.conference) is state
    message = inputs(hall)[kind]
    decision = hall.stage.give(message)
    if type(message) not in EXPECTED[state]:
        assert decision == NOTHING


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ConferenceAlarm"])
def test_twice_the_same_changes_nothing_more(state: Standing, kind: str) -> None:
    hall = met()
    STATES[state](hall)
    message = inputs(hall)[kind]
    hall.stage.give(message)
    before = {name: record for name, record in hall.stage.records.items() if ":handed:" not in name}
    hall.stage.give(message)
    after = {name: record for name, record in hall.stage.records.items() if ":handed:" not in name}
    assert after == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_conference_that_is_not_known_is_begun_by_its_creation_only(kind: str) -> None:
    hall = met()
    message = inputs(hall)[kind]
    hall.stage.records.clear()
    hall.stage.give(message)
    known = Conference.key_for(GROUP).name in hall.stage.records
    assert known is (kind == "CreateConference")


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_has_the_partition_takes_over_by_the_heartbeat_only(kind: str) -> None:
    hall = met()
    elsewhere(hall)
    hall.stage.give(inputs(hall)[kind], NOW + 3)
    if kind != "EndConference":
        assert hall.conference.instance == ("two" if kind == "ConferenceAlarm" else "one")
