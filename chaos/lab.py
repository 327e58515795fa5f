"""A small town for demos, simulations and tests: who lives there, and the stores they start from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from protocol.sealing import Random
from protocol.secret import Secret
from storage.bsf_records import Naf
from storage.kms_records import Site
from storage.provisioning import Device, draw_device, handset, network_records, site
from storage.records import Key, Record, RecordCodec
from storage.store import NO_VERSION, Change, Store, StoredPut
from storage.ue_records import Handset
from storage.wrapping import KeyEncryptionKey, Wrapping

DOMAIN: Final = "ims.example"


def draw_town(names: Sequence[str], random: Random, *, shared: bool = False) -> tuple[Device, ...]:
    """One device for each name, each on a host of that name. shared: with a pre-shared key, not a USIM."""
    return tuple(
        draw_device(f"{name}-1@{DOMAIN}", f"sip:{name}@{DOMAIN}", name, random, shared=shared)
        for name in names
    )


def draw_codec(random: Random) -> RecordCodec:
    """Records wrapped under a key that lives as long as the process."""
    return RecordCodec(Wrapping([KeyEncryptionKey(b"lab0", Secret(random(32)), 0)], random))


async def provision_network(
    store: Store, codec: RecordCodec, devices: tuple[Device, ...], now: int, random: Random
) -> None:
    """What `otway provision` does, into an empty store."""
    kms, naf = site(random, now)
    records: list[tuple[Key[Any], Record]] = [(Site.key(), kms), (Naf.key_for(kms.naf_id), naf)]
    await write_new(store, codec, [*records, *network_records(devices, now)], random)


async def provision_handsets(
    store: Store, codec: RecordCodec, devices: Iterable[Device], now: int, random: Random
) -> None:
    """A UE host's handsets as they are switched on."""
    records: list[tuple[Key[Any], Record]] = [
        (Handset.key_for(device.impi), handset(device, now)) for device in devices
    ]
    await write_new(store, codec, records, random)


async def write_new(
    store: Store, codec: RecordCodec, records: Iterable[tuple[Key[Any], Record]], random: Random
) -> None:
    """Write records that must not exist yet."""
    changes = [
        Change([StoredPut(key.name, NO_VERSION, random(16), codec.encode(key, record))])
        for key, record in records
    ]
    written = await store.write(changes)
    assert all(written)
