"""`otway demo` of transcoders, conferences and renewals: what it shows, and that each verdict can fail."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import pytest

from console.outside import clock
from console.scenarios.conference import ConferenceDemo, Conferred
from console.scenarios.pitches import gaps_ms, heard_ms, voice
from console.scenarios.renew import RenewDemo, Renewed, longest_silence_ms
from console.scenarios.streams import Attempt, Opened, how_many
from console.scenarios.transcode import Transcoded, TranscodeDemo
from media.likeness import spectral_likeness
from media.samples import callee_sample, caller_sample, tone
from media.wav import read_sound
from tests.console.conftest import AllScenarios

MEMBERS: Final = ("alice", "bob", "carol", "dave")


@dataclass(frozen=True)
class Demos:
    """Each after it has run: what its parties held may be changed, and judged again."""

    transcode: TranscodeDemo
    conference: ConferenceDemo
    renew: RenewDemo
    transcoded: Transcoded
    conferred: Conferred
    renewed: Renewed


@pytest.fixture(scope="module")
def demos() -> Demos:
    """At the same time, since they wait most of it."""

    def show(_: str) -> None:
        pass

    transcode = TranscodeDemo(clock=clock, random=os.urandom, show=show)
    conference = ConferenceDemo(clock=clock, random=os.urandom, show=show)
    renew = RenewDemo(clock=clock, random=os.urandom, show=show)

    async def play() -> None:
        await asyncio.gather(transcode.play(), conference.play(), renew.play())

    asyncio.run(play())
    outcomes = (transcode.outcome(), conference.outcome(), renew.outcome())
    return Demos(transcode, conference, renew, *outcomes)


def opened(attempts: Iterable[Attempt]) -> dict[str, list[str]]:
    """Who opened which columns, all of what is in them."""
    return {
        each.party: [column for column, how in each.opened.items() if how is Opened.ALL] for each in attempts
    }


def test_what_is_kept(all_scenarios: AllScenarios) -> None:
    kept = all_scenarios.kept
    for name, heard in (
        ("transcode", ("alice", "bob")),
        ("conference", MEMBERS),
        ("renew", ("alice", "bob")),
    ):
        files = {f"{each}-heard.wav" for each in heard} | {"ladder.txt", f"{name}.json"}
        assert {path.name for path in (kept / name).iterdir()} == files
    said = np.tile(caller_sample(), 3)
    assert spectral_likeness(read_sound(kept / "transcode" / "bob-heard.wav"), said) > 0.5  # with a silence
    assert spectral_likeness(read_sound(kept / "transcode" / "bob-heard.wav")[:20_000], said) > 0.9
    assert "NOTICE" in (kept / "transcode" / "ladder.txt").read_text()
    assert "the last packet that bob could decrypt" in (kept / "conference" / "ladder.txt").read_text()
    assert "longest silence" in (kept / "renew" / "ladder.txt").read_text()


def test_outcomes_are_read_again(all_scenarios: AllScenarios) -> None:
    for name, kind in (("transcode", Transcoded), ("conference", Conferred), ("renew", Renewed)):
        outcome: Any = msgspec.convert(all_scenarios.outcomes[name], kind)
        assert outcome.faults == []


def test_a_transcoder_opens_its_legs_and_no_more(demos: Demos) -> None:
    outcome = demos.transcoded
    assert outcome.faults == []
    legs = ["alice-T", "T-bob", "alice-T after", "T-bob after"]
    everything = [*legs, "K's own", "confirm"]
    assert opened(outcome.access) == {
        "alice": everything,
        "bob": everything,
        "transcoder": legs,
        "kms": everything,
        **{party: [] for party in ("bsf", "cscf", "carol", "wiretap")},
    }


def test_an_epoch_is_for_its_roster(demos: Demos) -> None:
    outcome = demos.conferred
    assert outcome.faults == []
    *_, all_four, without_bob, without_carol, another_mixes = (
        f"epoch {each.epoch}" for each in outcome.epochs
    )
    since_dave_came = [all_four, without_bob, without_carol, another_mixes]
    could = opened(outcome.access)
    assert could["alice"] == could["conference"] == could["kms"]
    assert set(since_dave_came) <= set(could["alice"])
    assert {all_four} == set(since_dave_came) & set(could["bob"])
    assert {all_four, without_bob} == set(since_dave_came) & set(could["carol"])
    assert could["dave"] == since_dave_came
    assert could["bsf"] == could["cscf"] == could["wiretap"] == []


def test_a_key_is_for_its_run(demos: Demos) -> None:
    outcome = demos.renewed
    assert outcome.faults == []
    keys = [f"K of run {n}" for n in outcome.runs]
    assert opened(outcome.keys) == {key: [key] for key in keys}
    assert opened(outcome.access)["alice"] == keys
    assert opened(outcome.access)["cscf"] == []


def given(held: dict[str, set[Any]], whose: str, to: str, judged: Callable[[], Any]) -> Any:
    """The outcome, had a party been given another's keys."""
    before = set(held[to])
    held[to] |= held[whose]
    try:
        return judged()
    finally:
        held[to] = before


@pytest.mark.parametrize("to", ["transcoder", "cscf", "bsf", "carol"])
def test_k_in_other_hands_is_seen(demos: Demos, to: str) -> None:
    demo = demos.transcode
    leaked = given(demo.keyring.held, "alice", to, demo.outcome)
    assert not leaked.good
    assert {"K's own", "confirm"} <= set(opened(leaked.access)[to])


def test_leg_keys_in_other_hands_are_seen(demos: Demos) -> None:
    demo = demos.transcode
    leaked = given(demo.keyring.held, "transcoder", "carol", demo.outcome)
    assert not leaked.good
    assert "alice-T" in opened(leaked.access)["carol"]
    assert "confirm" not in opened(leaked.access)["carol"]


@pytest.mark.parametrize(
    ("whose", "to"), [("alice", "bob"), ("dave", "carol"), ("alice", "dave"), ("bob", "cscf")]
)
def test_an_epochs_key_in_other_hands_is_seen(demos: Demos, whose: str, to: str) -> None:
    demo = demos.conference
    leaked = given(demo.keyring.held, whose, to, demo.outcome)
    assert not leaked.good
    if to in {"bob", "carol"}:
        assert leaked.out_after_s[to] > 1


def test_a_runs_key_in_other_hands_is_seen(demos: Demos) -> None:
    demo = demos.renew
    assert not given(demo.keyring.held, "bob", "cscf", demo.outcome).good


def test_keys_that_a_member_lacks_are_seen(demos: Demos) -> None:
    demo = demos.conference
    before = set(demo.keyring.held["alice"])
    demo.keyring.held["alice"] -= demo.keyring.held["dave"]
    try:
        assert not demo.outcome().good
    finally:
        demo.keyring.held["alice"] = before


@pytest.mark.parametrize(
    "changed",
    [
        {"told": ["alice"]},
        {"releases": 1},
        {"gap_s": {"alice": 0.5, "bob": 11.0}},
        {"gap_s": {"alice": 0.5, "bob": float("inf")}},
        {"likeness_before": {"alice": 0.99, "bob": 0.3}},
        {"likeness_after": {"alice": 0.3, "bob": 0.99}},
        {"unknown": 1},
        {"access": []},
    ],
    ids=str,
)
def test_what_else_a_transcoded_call_must_be(demos: Demos, changed: dict[str, Any]) -> None:
    assert not msgspec.structs.replace(demos.transcoded, **changed).good


def test_what_else_a_conference_must_be(demos: Demos) -> None:
    outcome = demos.conferred
    *before, last = outcome.epochs
    with_bob = [*before, msgspec.structs.replace(last, roster=[*last.roster, "bob"])]
    silent = [*before, msgspec.structs.replace(last, streams=0)]
    itself = {**outcome.heard_ms, "alice": {**outcome.heard_ms["alice"], "alice": 20}}
    unheard = {**outcome.heard_ms, "dave": {**outcome.heard_ms["dave"], "carol": 0}}
    wrong: tuple[dict[str, Any], ...] = (
        {"epochs": outcome.epochs[:-1]},
        {"epochs": with_bob},
        {"epochs": silent},
        {"heard_ms": itself},
        {"heard_ms": unheard},
        {"longest_gap_ms": {"alice": 120}, "waited_ms": 0},
        {"taken_over_ms": {"alice": 11_000}},
        {"roster_after": [*outcome.roster_after, "bob"]},
        {"out_after_s": {"bob": 0.2, "carol": 1.2}},
        {"out_after_s": {"bob": 0.2}},
        {"unknown": 1},
        {"access": []},
    )
    for changed in wrong:
        assert not msgspec.structs.replace(outcome, **changed).good, changed


@pytest.mark.parametrize(
    "changed",
    [
        {"runs": [0, 1]},
        {"talked_s": 5.0},
        {"longest_silence_ms": {"alice": 0, "bob": 200}, "waited_ms": 0},
        {"likeness": {"alice": 0.5, "bob": 1.0}},
        {"reasons": {"alice": "hung-up", "bob": "silent"}},
        {"ended_after_s": {"alice": 0.1, "bob": 4.0}},
        {"silent_after_s": 4.0},
        {"unknown": 1},
        {"access": []},
        {"keys": []},
    ],
    ids=str,
)
def test_what_else_a_renewed_call_must_be(demos: Demos, changed: dict[str, Any]) -> None:
    assert not msgspec.structs.replace(demos.renewed, **changed).good


def test_a_key_that_opens_another_runs_packets_is_seen(demos: Demos) -> None:
    outcome = demos.renewed
    both = dict.fromkeys(outcome.keys[0].opened, Opened.ALL)
    keys = [Attempt(outcome.keys[0].party, both), *outcome.keys[1:]]
    assert not msgspec.structs.replace(outcome, keys=keys).good


def test_voices_in_a_mix_are_told_apart() -> None:
    mix = voice(400, 1.0) + voice(700, 1.0) + voice(850, 1.0)
    assert [heard_ms(mix, hertz) for hertz in (400, 550, 700, 850)] == [1000, 0, 1000, 1000]
    torn = mix.copy()
    torn[1600:2240] = voice(700, 0.08)
    assert (gaps_ms(torn, 400), gaps_ms(torn, 700)) == ([80], [])
    assert gaps_ms(torn[:100], 400) == []


def test_the_longest_silence_of_what_was_heard() -> None:
    sound = tone(440, 1.0)
    assert longest_silence_ms(sound) == 0
    sound[:400] = sound[2000:2800] = 0
    assert longest_silence_ms(sound) == 100
    assert longest_silence_ms(np.zeros(800, np.int16)) == 0
    assert longest_silence_ms(np.tile(callee_sample(), 2)) < 50


def test_some_is_not_all() -> None:
    assert [how_many(each) for each in ([True, True], [True, False], [False], [])] == [
        Opened.ALL,
        Opened.SOME,
        Opened.NONE,
        Opened.NONE,
    ]
