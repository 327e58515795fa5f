"""A small town for demos, simulations and tests: who lives there, and a key to wrap records under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from protocol.names import Owner
from protocol.sealing import Random
from protocol.secret import Secret
from storage.records import RecordCodec
from storage.users_file import Device, draw_device
from storage.wrapping import KeyEncryptionKey, Wrapping

DOMAIN: Final = "ims.example"
FOCUS: Final = f"sip:conference@{DOMAIN}"


def draw_town(names: Sequence[str], random: Random, *, shared: bool = False) -> tuple[Device, ...]:
    """One device for each name, each on a host of that name: `bob` has bob-1@..., `bob-2` is his second;
    `carol@bob` is carol's, on bob's host. shared: with a pre-shared key, not a USIM."""
    return tuple(
        draw_device(f"{user}-{number}@{DOMAIN}", f"sip:{user}@{DOMAIN}", host or name, random, shared=shared)
        for name, _, host in (each.partition("@") for each in names)
        for user, number in (_user_and_device(name),)
    )


def draw_mailbox(random: Random) -> Device:
    """The town's mailbox."""
    return _network_function("voicemail", Owner.MAILBOX, random)


def draw_transcoder(random: Random) -> Device:
    """The town's transcoder."""
    return _network_function("transcoder", Owner.TRANSCODER, random)


def draw_focus(random: Random) -> Device:
    """The town's focus, which mixes."""
    return _network_function("conference", Owner.FOCUS, random)


def draw_functions(random: Random) -> tuple[Device, ...]:
    """All of the town's network functions."""
    return (draw_mailbox(random), draw_transcoder(random), draw_focus(random))


def _network_function(name: str, owner: Owner, random: Random) -> Device:
    drawn = draw_device(f"{name}@{DOMAIN}", f"sip:{name}@{DOMAIN}", "", random, shared=True)
    return replace(drawn, owner=owner)


def _user_and_device(name: str) -> tuple[str, str]:
    user, dash, number = name.rpartition("-")
    return (user, number) if dash and user and number.isdecimal() else (name, "1")


def draw_crowd(count: int, host: str, random: Random) -> tuple[Device, ...]:
    """So many devices with pre-shared keys on one host: load-0, load-1 ..., each with its own identity."""
    return tuple(
        draw_device(f"load-{n}@{DOMAIN}", f"sip:load-{n}@{DOMAIN}", host, random, shared=True)
        for n in range(count)
    )


def draw_codec(random: Random) -> RecordCodec:
    """Records wrapped under a key that lives as long as the process."""
    return RecordCodec(Wrapping([KeyEncryptionKey(b"lab0", Secret(random(32)), 0)], random))
