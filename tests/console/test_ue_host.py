"""What a UE host's handsets must not forget is there again when the host is."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from chaos.lab import draw_town
from console.hosting.ue_host import UeHost, UeHostSettings
from media.engine import EngineSettings
from protocol.profile import HARDENED
from storage.handset_memory import HandsetMemoryBroken
from storage.records import Key
from storage.ue_records import Inbox
from tests.agents.collector import waiting
from tests.agents.scene import NOW
from topics.bus import Outbound
from topics.catalogue import catalogue, ue_inbox
from topics.codec import encode
from topics.memory import MemoryBroker, MemoryBus

BOB = "bob-1@ims.example"


def host(broker: MemoryBroker, memory: Path | None) -> UeHost:
    """Bob's host, about to be switched on."""
    draw = random.Random(1).randbytes
    return UeHost(
        UeHostSettings(
            host="bob",
            devices=draw_town(["bob"], draw, shared=True),
            engine=EngineSettings(lines=1),
            profile=HARDENED,
            memory=memory,
        ),
        MemoryBus(broker, "ue.bob", ue_inbox("bob").name),
        clock=lambda: NOW,
        random=draw,
        source=lambda _: np.zeros(0, np.int16),
        sink=lambda _leg, _pcm: None,
    )


async def inbox_of(phone: UeHost) -> Inbox | None:
    key: Key[Inbox] = Inbox.key_for(BOB)
    [stored] = await phone.store.read([key.name])
    return None if stored.value is None else phone.codec.decode(key, stored.value)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_handset_knows_its_mailbox_after_a_restart(tmp_path: Path, *, kept: bool) -> None:
    broker = MemoryBroker(catalogue(["bob"]))
    memory = tmp_path / "bob" if kept else None
    phone = host(broker, memory)
    await phone.start()
    broker.append(Outbound(ue_inbox("bob").name, 0, BOB.encode(), encode(waiting())))
    while await phone.loop.step(0):
        pass
    before = await inbox_of(phone)
    assert before is not None
    await phone.stop()

    phone = host(broker, memory)
    await phone.start()
    assert await inbox_of(phone) == (before if kept else None)
    await phone.stop()


async def test_a_host_whose_memory_is_something_else_does_not_start(tmp_path: Path) -> None:
    """It would show as new what was collected."""
    path = tmp_path / "bob"
    path.write_text("shopping list")
    with pytest.raises(HandsetMemoryBroken, match="put the right file there"):
        await host(MemoryBroker(catalogue(["bob"])), path).start()
