"""What users want of conferences in a simulated world, and what its operators order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from storage.focus_records import Conference
from storage.records import Key
from storage.transcoder_records import Legs, LegsState
from storage.ue_records import Handset
from topics.catalogue import CONFERENCE, ORDERS
from topics.messages import (
    CreateConference,
    EndConference,
    JoinConference,
    LeaveConference,
    RemoveMember,
    Revoke,
    RevokeRelease,
)

if TYPE_CHECKING:
    from chaos.simulator import World


def create(world: World, group: bytes) -> None:
    """A conference begins."""
    assert world.focus is not None
    world.conferences.append(group)
    wish = CreateConference(group=group, focus=world.focus.identity, request=world.random(16))
    world.tell_network(CONFERENCE, group.hex(), wish)


def join(world: World, host: str, group: bytes) -> None:
    """A user wants to be in it, with the device on this host."""
    assert world.focus is not None
    impi = world.device(host).impi
    wish = JoinConference(request=world.random(16), to=impi, group=group, focus=world.focus.identity)
    world.tell_host(host, wish)


def leave(world: World, host: str, group: bytes) -> None:
    """A user leaves it."""
    assert world.focus is not None
    impi = world.device(host).impi
    wish = LeaveConference(request=world.random(16), to=impi, group=group, focus=world.focus.identity)
    world.tell_host(host, wish)


def remove(world: World, identity: str, group: bytes) -> None:
    """An operator puts somebody out of it."""
    assert world.focus is not None
    wish = RemoveMember(group=group, focus=world.focus.identity, member=identity, request=world.random(16))
    world.tell_network(CONFERENCE, group.hex(), wish)


def end(world: World, group: bytes) -> None:
    """An operator ends it."""
    assert world.focus is not None
    wish = EndConference(group=group, focus=world.focus.identity, request=world.random(16))
    world.tell_network(CONFERENCE, group.hex(), wish)


def crash_focus(world: World, group: bytes, back_after_s: float) -> None:
    """The process that mixes it dies."""
    key = Conference.key_for(group)
    stored = dict(world.network.items()).get(key.name)
    if stored is not None:
        instance = world.codec.decode(key, stored).instance
        for member in world.members:
            if member.instance == instance:
                world.crash(member, back_after_s=back_after_s)


def crash_transcoder(world: World, back_after_s: float) -> None:
    """The process that has some call's legs dies."""
    for legs in legs_of(world):
        for member in world.members:
            if member.instance == legs.instance and legs.state is LegsState.RUNNING:
                world.crash(member, back_after_s=back_after_s)
                return


def revoke_key(world: World, host: str) -> None:
    """An operator revokes the key id that a device has just now."""
    impi = world.device(host).impi
    name = Handset.key_for(impi).name
    stored = dict(world.member(host).store.items()).get(name)
    handset = None if stored is None else world.codec.decode(Handset.key_for(impi), stored)
    if handset is not None and handset.key is not None:
        order = Revoke(key_id=handset.key.key_id, order=world.random(16))
        world.orders.append((world.time, order))
        world.tell_network(ORDERS, order.key_id, order)


def revoke_release(world: World) -> None:
    """An operator takes from a transcoder what it was released of some call."""
    for legs in legs_of(world):
        if legs.state is LegsState.RUNNING:
            order = RevokeRelease(caller=legs.run.caller, call=legs.run.call, order=world.random(16))
            world.orders.append((world.time, order))
            world.tell_network(ORDERS, order.caller, order)
            return


def order_again(world: World) -> None:
    """What was ordered in trouble is ordered once more: its outcome may have been lost."""
    for number, (_, order) in enumerate(world.orders):
        world.orders[number] = (world.time, order)
        about = order.key_id if isinstance(order, Revoke) else order.caller
        world.tell_network(ORDERS, about, order)


def legs_of(world: World) -> Iterator[Legs]:
    """All calls that a transcoder knows."""
    for name, value in world.network.items():
        if name.startswith("transcoder:") and ":legs:" in name:
            yield world.codec.decode(Key(name, Legs), value)
