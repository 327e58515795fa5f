"""The embedded deployment with processes of network functions that come and go."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from chaos.eavesdropping import can_decrypt
from console.embedded import Town, TownSettings
from console.instances import role_of
from console.outside import clock
from media.samples import tone
from protocol.names import Permit
from topics.messages import AuditEvent, ConferenceEvent, ReportEvent

SOUNDS: Final = {"alice": tone(440, 20.0), "bob": tone(620, 20.0)}
BOTH: Final = (Permit.DEFERRED, Permit.TRANSCODE)


@asynccontextmanager
async def running(settings: TownSettings) -> AsyncIterator[Town]:
    town = Town(settings, clock=clock, random=os.urandom, on_hop=lambda _: None)
    try:
        await town.start()
        await town.registered()
        yield town
    finally:
        await town.stop()


def told(town: Town, event: ReportEvent) -> list[str]:
    """Who has reported it, as often as it was."""
    return [report.device for report in town.reports if report.event is event]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("transcoder", "transcoder"),
        ("conference-2", "conference"),
        ("bob-2", ""),
        ("transcoder-x", ""),
        ("alice", ""),
    ],
)
def test_an_instance_is_named_by_its_role(name: str, role: str) -> None:
    assert role_of(name) == role


async def test_a_transcoder_that_dies_is_replaced() -> None:
    settings = TownSettings(
        sounds=SOUNDS,
        functions=("transcoder", "transcoder-2"),
        codecs={"bob": ("opus",)},
        permits=dict.fromkeys(SOUNDS, BOTH),
    )
    async with running(settings) as town:
        town.wishes.dial("alice", "bob")
        await town.until(lambda: len(told(town, ReportEvent.TRANSCODED)) == 2)
        [carrying] = [name for name in settings.functions if town.roots(name)]
        await town.until(lambda: town.wiretap.srtp(carrying) != [])
        given = town.holdings("transcoder")
        alice, transcoder = town.devices["alice"].identity, town.transcoder.identity
        packets = town.wiretap.srtp(carrying)
        assert can_decrypt(given, packets, sender=alice, receiver=transcoder)
        assert not can_decrypt(town.holdings("cscf"), packets, sender=alice, receiver=transcoder)

        await town.switch_off(carrying)
        await town.until(lambda: len(told(town, ReportEvent.TRANSCODED)) == 4)
        assert sum(audit.event is AuditEvent.RELEASED for audit in town.audits) == 2
        await town.switch_on(carrying)
        town.hang_up("alice")
        await town.until(lambda: len(told(town, ReportEvent.MEDIA)) == 2)


async def test_members_come_and_go_and_the_focus_is_replaced() -> None:
    functions = ("conference", "conference-2")
    async with running(TownSettings(sounds=SOUNDS, functions=functions)) as town:
        group = town.wishes.create_conference()
        await town.until(lambda: any(each.event is ConferenceEvent.CREATED for each in town.conferences))
        for name in SOUNDS:
            town.wishes.join(name, group)
        await town.until(lambda: len(told(town, ReportEvent.JOINED)) == 2)
        [mixing] = {each.instance for each in town.conferences if each.instance}
        [carrying] = [name for name in functions if town.roots(name)]
        await town.switch_off(carrying)
        taken = ConferenceEvent.TAKEN_OVER
        await town.until(lambda: any(each.event is taken for each in town.conferences))
        assert {each.instance for each in town.conferences if each.event is taken} != {mixing}
        town.wishes.leave("bob", group)
        await town.until(lambda: any(report.epoch == 2 for report in town.reports))
        assert told(town, ReportEvent.LEFT_CONFERENCE) == [town.devices["bob"].impi]
        question = town.wishes.show_conference(group)
        await town.until(lambda: any(each.request == question for each in town.conferences))
        [stands] = [each for each in town.conferences if each.request == question]
        assert stands.roster == tuple(sorted([town.devices["alice"].identity, town.focus.identity]))
        town.wishes.end_conference(group)
        await town.until(lambda: len(told(town, ReportEvent.LEFT_CONFERENCE)) == 2)


async def test_a_revoked_key_id_ends_its_calls() -> None:
    async with running(TownSettings(sounds=SOUNDS, life_s=60)) as town:
        town.wishes.dial("alice", "bob")
        await town.until(lambda: told(town, ReportEvent.CONFIRMED) != [])
        [granted] = [audit for audit in town.audits if audit.event is AuditEvent.GRANTED]
        assert granted.not_after is not None
        assert granted.not_after <= granted.at + 60
        assert granted.callee_key is not None
        town.wishes.revoke(granted.callee_key)
        await town.until(lambda: len(told(town, ReportEvent.ENDED)) == 2)
        reasons = {report.reason for report in town.reports if report.event is ReportEvent.ENDED}
        assert "revoked" in reasons
