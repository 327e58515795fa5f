"""No secret in any message, stored record, log line, error or repr, whatever goes wrong."""

from __future__ import annotations

import base64
import copy
import io
import pickle
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import structlog

from chaos.eavesdropping import RECORDS, secrets_in
from chaos.faults import Faults
from chaos.simulator import World
from protocol.secret import Secret
from storage.key_file import KeyFileBroken
from storage.memory import MemoryStore
from storage.records import Key, RecordCodec
from topics.codec import decode, encode
from topics.messages import Register

SEEDS = range(24)


def forms(secret: Secret) -> tuple[bytes, ...]:
    """How a secret could show: as it is, in hexadecimal, in base64, as Python writes octets."""
    octets = secret.reveal()
    return octets, octets.hex().encode(), base64.b64encode(octets)[:-4], repr(octets)[2:-1].encode()


def opened(store: MemoryStore, codec: RecordCodec) -> Iterator[Any]:
    """Every record with secrets that a store holds, as its owner reads it."""
    for name, value in store.items():
        role, _, rest = name.partition(":")
        kind = RECORDS.get((role, rest.partition(":")[2].partition(":")[0]))
        if kind is not None:
            yield codec.decode(Key(name, kind), value)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All that is logged, at every level."""
    written = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(written), cache_logger_on_first_use=False)
    yield written
    structlog.reset_defaults()


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_that_leaves_an_agent_holds_a_secret(seed: int, log: io.StringIO) -> None:
    world = World(seed, Faults(drop=0.05, duplicate=0.1, delay_s=2.0, forge=0.1, crashes=3, calls=3)).run()
    stores = [world.network, *(world.member(device.host).store for device in world.devices)]
    records = [record for store in stores for record in opened(store, world.codec)]
    secrets = {secret for record in records for secret in secrets_in(record)}
    secrets |= {grant.key for grant in world.grants} | set(world.observer.keys.values())
    secrets |= {key for device in world.devices for key in (device.k, device.opc, device.psk) if key}
    assert len(secrets) >= 10

    seen = io.BytesIO()
    for _, record in world.history:
        seen.write(record.key or b"")
        seen.write(record.value or b"")
        for name, value in record.headers:
            seen.write(name.encode() + value)
    for store in stores:
        for name, octets in store.items():
            seen.write(name.encode() + octets)
    for thing in (*records, *world.devices, *world.grants, *world.members, world.history, world.codec):
        seen.write(repr(thing).encode())
    seen.write(log.getvalue().encode())
    everything = seen.getvalue()
    for secret in secrets:
        for form in forms(secret):
            assert form not in everything


def test_a_secret_does_not_print_copy_or_travel() -> None:
    secret = Secret(b"hunter2!" * 4)
    for shown in (repr(secret), str(secret), f"{secret}", f"{[secret]}", repr({"k": secret})):
        assert "hunter2" not in shown
    for take in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            take(secret)
    with pytest.raises(TypeError):
        msgspec.msgpack.encode(secret)
    message = msgspec.structs.replace(
        Register(identity="sip:a@b", expires_s=1, sender=("a", "b")),  # type: ignore[arg-type]
        identity=secret,
    )
    with pytest.raises(TypeError):
        encode(message)


def test_errors_do_not_hold_what_they_are_about() -> None:
    octets = b"hunter2!" * 4
    for error in (KeyFileBroken("keys.toml is not right"),):
        assert "hunter2" not in repr(error)
    with pytest.raises(Exception, match="OR-01") as refused:
        decode(octets)
    assert "hunter2" not in str(refused.value) + repr(refused.value)
