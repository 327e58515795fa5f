"""What the network and the handsets know before anything has happened: the records of a users file.

KMS  what it is (K_F, K_zn, NAF_Id); pre-shared keys of handsets and network functions
BSF  K_zn, subscriptions (K, OPc, SQN)
UE   its USIM, or its pre-shared key
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from protocol import gba
from protocol.limits import SKEW_S
from protocol.secret import Secret
from storage.bsf_records import Naf, Subscription
from storage.kms_records import Site, Subscriber
from storage.records import Key, Record, RecordCodec
from storage.store import Change, Store, StoredPut, StoreUnavailable
from storage.ue_records import Handset, HandsetKey, Usim
from storage.users_file import Device

FOREVER: Final = 2**40 - 1
_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What became of the records."""

    added: int
    changed: int
    unchanged: int


async def provision_network(
    store: Store,
    codec: RecordCodec,
    devices: Iterable[Device],
    now: int,
    random: Callable[[int], bytes],
    *,
    restored: bool = False,
) -> Provisioned:
    """Write what the KMS and the BSF need to know of these devices, and what they share, if it is not there.

    Nothing is taken away, and a subscription keeps its SQN. restored: the store comes from a copy, so that
    the KMS refuses tokens dated before now (OR-10). Raises RecordBroken when the store's records do not open
    with these keys, StoreUnavailable, StoreRefused.
    """
    for _ in range(_TRIES):
        done = await _provision(store, codec, list(devices), now, random, restored=restored)
        if done is not None:
            return done
    raise StoreUnavailable("others write the same records: try again")


async def provision_handsets(
    store: Store, codec: RecordCodec, devices: Iterable[Device], now: int, random: Callable[[int], bytes]
) -> None:
    """A UE host's handsets as they are switched on, into its own memory."""
    records = [(Handset.key_for(device.impi), handset(device, now)) for device in devices]
    await _write(store, codec, [(key, None, record) for key, record in records], {}, random)


async def _provision(
    store: Store,
    codec: RecordCodec,
    devices: list[Device],
    now: int,
    random: Callable[[int], bytes],
    *,
    restored: bool,
) -> Provisioned | None:
    """One attempt; None when somebody else wrote meanwhile."""
    naf_id = gba.naf_id(gba.KMS_HOST)
    wanted: list[tuple[Key[Any], Record]] = [
        (
            Site.key(),
            Site(fork_key=Secret(random(32)), zn_key=Secret(random(32)), naf_id=naf_id, founded=now),
        ),
        (Naf.key_for(naf_id), Naf(zn_key=Secret(bytes(32)))),
        *_subscribers(devices, now),
    ]
    names = [key.name for key, _ in wanted]
    versions: dict[str, bytes] = {}
    changes: list[tuple[Key[Any], Record | None, Record]] = []
    zn_key = Secret(b"")
    for (key, fresh), stored in zip(wanted, await store.read(names), strict=True):
        versions[key.name] = stored.version
        old = None if stored.value is None else codec.decode(key, stored.value)
        record = _kept(old, fresh)
        if isinstance(record, Site):
            record = msgspec.structs.replace(record, founded=now) if restored else record
            zn_key = record.zn_key
        if isinstance(record, Naf):
            record = Naf(zn_key=zn_key)
        changes.append((key, old, record))
    written = await _write(store, codec, changes, versions, random)
    if not written:
        return None
    added = sum(old is None for _, old, _ in changes)
    changed = sum(old is not None and old != record for _, old, record in changes)
    return Provisioned(added, changed, len(changes) - added - changed)


def _kept(old: Record | None, fresh: Record) -> Record:
    """What stays of the old record: all of a site, the SQN of a subscription, the beginning of a key."""
    match old, fresh:
        case Site(), Site():
            return old
        case Subscription(), Subscription() if (old.k, old.opc) == (fresh.k, fresh.opc):
            return msgspec.structs.replace(fresh, sqn=old.sqn)
        case Subscriber(), Subscriber() if old.key == fresh.key:
            return msgspec.structs.replace(
                fresh, not_before=old.not_before, revoked=old.revoked, revoked_at=old.revoked_at
            )
        case Subscriber(), Subscriber():
            return msgspec.structs.replace(fresh, revoked_at=old.revoked_at)
        case _:
            return fresh


async def _write(
    store: Store,
    codec: RecordCodec,
    changes: Iterable[tuple[Key[Any], Record | None, Record]],
    versions: dict[str, bytes],
    random: Callable[[int], bytes],
) -> bool:
    puts = [
        StoredPut(key.name, versions.get(key.name, b""), random(16), codec.encode(key, record))
        for key, old, record in changes
        if old != record
    ]
    return all(await store.write([Change(puts)]))


def _subscribers(devices: Iterable[Device], now: int) -> list[tuple[Key[Any], Record]]:
    """What the BSF's and the KMS's store have of these devices."""
    found: list[tuple[Key[Any], Record]] = []
    for device in devices:
        if device.k is not None and device.opc is not None:
            subscription = Subscription(
                impi=device.impi, identities=(device.identity,), k=device.k, opc=device.opc, sqn=0
            )
            found.append((Subscription.key_for(device.impi), subscription))
        if device.psk is not None:
            subscriber = Subscriber(
                key_id=device.psk_id,
                key=device.psk,
                impi=device.impi,
                identities=(device.identity,),
                not_before=now - SKEW_S,
                not_after=FOREVER,
                owner=device.owner,
                serves=device.serves,
                mixes=device.mixes,
            )
            found.append((Subscriber.key_for(device.psk_id), subscriber))
    return found


def handset(device: Device, now: int) -> Handset:
    """What the device itself has when it is switched on."""
    usim = None if device.k is None or device.opc is None else Usim(k=device.k, opc=device.opc)
    key = None
    if device.psk is not None:
        key = HandsetKey(key_id=device.psk_id, key=device.psk, not_after=FOREVER, obtained=now)
    return Handset(impi=device.impi, identity=device.identity, usim=usim, key=key)
