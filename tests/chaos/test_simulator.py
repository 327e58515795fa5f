"""Whole deployments from seeds: the invariants hold, and a seed is a run."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from chaos.faults import Faults
from chaos.invariants import violations
from chaos.simulator import World
from protocol.checks import Check
from tests.chaos.conftest import say_nothing
from topics.messages import (
    Audit,
    AuditEvent,
    ConferenceEvent,
    ConferenceReport,
    PutOut,
    Report,
    ReportEvent,
)

SEEDS = 5000
CHUNK = 100


def judged(first: int) -> list[str]:
    """What is wrong with the runs of some seeds; in a process of its own."""
    return [v for seed in range(first, first + CHUNK) for v in violations(World(seed).run())]


def test_the_invariants_hold() -> None:
    with ProcessPoolExecutor(initializer=say_nothing, mp_context=get_context("fork")) as pool:
        found = [violation for some in pool.map(judged, range(0, SEEDS, CHUNK)) for violation in some]
    assert found == []


def test_a_seed_is_a_run() -> None:
    one, two = World(7).run(), World(7).run()
    assert one.history == two.history
    assert one.grants == two.grants


def test_the_seeds_reach_what_they_are_there_for() -> None:
    """Calls come up and end in trouble, devices lose, messages are left and heard, agents crash, records are
    lost, repeated, forged and spliced, and a corrupt device tries its luck."""
    worlds = [World(seed).run() for seed in range(60)]
    assert sum(len(world.grants) for world in worlds) > 100
    assert sum(len(member.crashed_at) for world in worlds for member in world.members) > 60
    assert any(world.faults.drop for world in worlds)
    assert any(world.faults.forge for world in worlds)
    assert sum(len(world.splicer.sent) for world in worlds) > 300
    media = [media for world in worlds for media in world.sessions]
    assert sum(len(each.openings) for each in media) > 100
    assert sum(listening.whole for each in media for listening in each.listenings) > 15
    assert any(not listening.whole for each in media for listening in each.listenings)
    assert sum(opening.leg.to_mailbox for each in media for opening in each.openings) > 30
    lost = [hosts for world in worlds for hosts in world.observer.held.values() if len(hosts) == 1]
    assert len(lost) > 20, "devices that were granted a K, and were not taken"
    told = [message for world in worlds for _, _, message in world.messages()]
    refused = {each.check for each in told if isinstance(each, Audit) and each.event is AuditEvent.REFUSED}
    assert {Check.OR_15, Check.OR_17} <= refused, "a corrupt device has asked"


def test_the_seeds_reach_conferences_transcoders_renewals_and_revocations() -> None:
    """Members come, go, are put out and rekeyed, a focus and a transcoder die and are taken over, calls go on
    under another key, and what was granted is withdrawn."""
    worlds = [World(seed).run() for seed in range(150)]
    told = [message for world in worlds for _, _, message in world.messages()]
    of_focus = Counter(each.event for each in told if isinstance(each, ConferenceReport))
    assert of_focus[ConferenceEvent.EPOCH] > 100
    assert of_focus[ConferenceEvent.TAKEN_OVER] > 10
    assert of_focus[ConferenceEvent.ENDED] > 10
    of_users = Counter(each.event for each in told if isinstance(each, Report))
    assert of_users[ReportEvent.JOINED] > 60
    assert of_users[ReportEvent.EPOCH] > 60
    assert of_users[ReportEvent.LEFT_CONFERENCE] > 30
    assert of_users[ReportEvent.TRANSCODED] > 30
    assert of_users[ReportEvent.RENEWED] > 100
    assert {"put-out", "replaced", "ended"} <= {each.reason for each in told if isinstance(each, PutOut)}
    audited = Counter(each.event for each in told if isinstance(each, Audit))
    assert audited[AuditEvent.RELEASED] > 30
    assert audited[AuditEvent.WITHDRAWN] > 5
    assert audited[AuditEvent.RELEASE_REVOKED] > 0
    renewed = [grant for world in worlds for grant in world.grants if grant.n]
    assert len(renewed) > 50
    assert any(leg.n for world in worlds for media in world.bridges.values() for leg in media.open.values())


def test_without_faults_every_call_comes_up() -> None:
    for seed in range(20):
        world = World(seed, Faults(calls=3)).run()
        assert violations(world) == []
        assert world.grants
