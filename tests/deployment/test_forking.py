"""A call to a user with two devices, each a process with its own media: one takes it, the other is told to stop."""

from __future__ import annotations

import asyncio
import json
import secrets

import pytest

from chaos.lab import draw_town
from media.likeness import likeness
from media.samples import callee_sample, caller_sample, tone
from media.wav import read_sound, write_wav
from storage.kms_records import Agreement
from storage.redis_store import RedisStore
from tests.deployment.network import Network
from topics.catalogue import AUDIT
from topics.messages import Audit, AuditEvent, ReportEvent

pytestmark = pytest.mark.servers

ALICE, WINNER, LOSER = (f"{name}@ims.example" for name in ("alice-1", "bob-1", "bob-2"))


async def test_one_of_two_devices_takes_the_call(network: Network) -> None:
    await network.set_up(draw_town(["alice", "bob", "bob-2"], secrets.token_bytes))
    said = caller_sample()[:16_000]
    write_wav(network.directory / "said.wav", said)
    users = ("--users", "users.toml")
    async with network.overhear(AUDIT) as overheard:
        await asyncio.gather(
            *(network.run(role, role) for role in ("kms", "bsf", "cscf")),
            network.run("alice", "ue", "--host", "alice", *users),
            network.run("bob", "ue", "--host", "bob", *users, "--answer-after", "1"),
            network.run("bob-2", "ue", "--host", "bob-2", *users, "--answer-after", "20", "--hertz", "620"),
        )
        for device in (ALICE, WINNER, LOSER):
            await overheard.until_told(device, ReportEvent.REGISTERED)
        outcome = json.loads(
            await network.otway("call", "alice", "bob", "--wav", "said.wav", "--json", "--out", "out")
        )
        assert (outcome["confirmed"], outcome["answered_by"], outcome["kept"]) == (True, WINNER, None)
        call = outcome["call"]
        for device in (WINNER, LOSER):
            await overheard.until_told(device, ReportEvent.RINGING, call)
        assert (await overheard.until_told(LOSER, ReportEvent.ENDED, call)).reason == "cancelled"
        assert (await overheard.until_told(WINNER, ReportEvent.ENDED, call)).reason == "bye"
        assert not {
            report.event for report in overheard.board.reports if report.device == LOSER
        } & {ReportEvent.CONFIRMED, ReportEvent.MEDIA, ReportEvent.REFUSED}

        def settled() -> bool:
            return any(
                isinstance(noted, Audit)
                and noted.event is AuditEvent.SETTLED
                and (noted.call or b"").hex() == call
                for _, noted in overheard.passed
            )

        await overheard.until(settled, "the KMS is told whose answer alice took")
    out = network.directory / "out"
    assert likeness(read_sound(out / "bob-heard.wav"), said) > 0.9
    alice_heard = read_sound(out / "alice-heard.wav")
    assert likeness(alice_heard, callee_sample()) > 0.9
    assert likeness(alice_heard, tone(620, 2.0)) < 0.2

    held = await keys_held(network, outcome["caller"], bytes.fromhex(call))
    assert held == {WINNER: True, LOSER: False}


async def keys_held(network: Network, caller: str, call: bytes) -> dict[str, bool]:
    """The devices that the KMS was asked by, and whether its record has the key of each."""
    store, key = RedisStore(network.redis_settings), Agreement.key_for(caller, call)
    [stored] = await store.read([key.name])
    await store.close()
    assert stored.value is not None
    [agreed] = network.codec.decode(key, stored.value).runs
    return {fork.impi: fork.key is not None for fork in agreed.forks}
