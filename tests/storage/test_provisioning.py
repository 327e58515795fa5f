"""What the KMS knows of a users file: each key with what its owner is."""

from __future__ import annotations

import random
from dataclasses import replace

import msgspec

from chaos.lab import draw_codec
from protocol.names import Owner
from protocol.sealing import Random
from protocol.secret import Secret
from storage.kms_records import Subscriber
from storage.memory import MemoryStore
from storage.provisioning import FOREVER, Provisioned, provision_network
from storage.records import RecordCodec
from storage.store import Change, StoredPut
from storage.users_file import Device, draw_device

NOW = 1_800_000_000


def drawn() -> tuple[Random, RecordCodec, tuple[Device, Device]]:
    draw = random.Random(1).randbytes
    bob = draw_device("bob-1@ims.example", "sip:bob@ims.example", "bob", draw, shared=True)
    mailbox = draw_device("voicemail@ims.example", "sip:voicemail@ims.example", "", draw, shared=True)
    return draw, draw_codec(draw), (bob, replace(mailbox, owner=Owner.MAILBOX))


async def subscriber(store: MemoryStore, codec: RecordCodec, device: Device) -> Subscriber:
    key = Subscriber.key_for(device.psk_id)
    [stored] = await store.read([key.name])
    assert stored.value is not None
    return codec.decode(key, stored.value)


async def test_the_kms_knows_a_mailbox_from_a_handset() -> None:
    draw, codec, devices = drawn()
    store = MemoryStore()
    await provision_network(store, codec, devices, NOW, draw)
    for device, owner in zip(devices, (Owner.UE, Owner.MAILBOX), strict=True):
        known = await subscriber(store, codec, device)
        assert (known.owner, known.key, known.impi) == (owner, device.psk, device.impi)
        assert (known.identities, known.not_after) == ((device.identity,), FOREVER)
    assert await provision_network(store, codec, devices, NOW + 5, draw) == Provisioned(0, 0, 4)


async def test_what_an_owner_is_may_be_corrected() -> None:
    draw, codec, (_, mailbox) = drawn()
    store = MemoryStore()
    await provision_network(store, codec, [replace(mailbox, owner=Owner.UE)], NOW, draw)
    assert await provision_network(store, codec, [mailbox], NOW, draw) == Provisioned(0, 1, 2)
    assert (await subscriber(store, codec, mailbox)).owner is Owner.MAILBOX


async def test_a_new_key_for_a_revoked_key_id_does_not_forget_the_revocation() -> None:
    draw, codec, (bob, _) = drawn()
    store = MemoryStore()
    await provision_network(store, codec, [bob], NOW, draw)
    key = Subscriber.key_for(bob.psk_id)
    [stored] = await store.read([key.name])
    revoked = msgspec.structs.replace(await subscriber(store, codec, bob), revoked=True, revoked_at=NOW + 1)
    put = StoredPut(key.name, stored.version, draw(16), codec.encode(key, revoked))
    assert await store.write([Change([put])]) == [True]
    await provision_network(store, codec, [replace(bob, psk=Secret(draw(32)))], NOW + 2, draw)
    known = await subscriber(store, codec, bob)
    assert (known.revoked, known.revoked_at) == (False, NOW + 1)
