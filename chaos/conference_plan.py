"""What happens about conferences, transcoders and revocations in a simulated world, from its seed."""

from __future__ import annotations

import random as seeded
from functools import partial
from typing import TYPE_CHECKING

from chaos import wishes
from chaos.faults import Revoked

if TYPE_CHECKING:
    from chaos.simulator import World


def conference(world: World, plan: seeded.Random, trouble_s: float) -> None:
    """It is created; members come, go, are put out and come again; who mixes it dies; perhaps it is ended."""
    group = plan.randbytes(16)
    begin = plan.uniform(1.0, 8.0)
    world.at(begin, partial(wishes.create, world, group))
    hosts = [device.host for device in world.devices]
    members = plan.sample(hosts, plan.randint(2, len(hosts)))
    for host in members:
        when = begin + plan.uniform(0.5, 25.0)
        world.at(when, partial(wishes.join, world, host, group))
        if plan.random() < 0.35:
            gone = when + plan.uniform(1.0, 25.0)
            world.at(gone, partial(wishes.leave, world, host, group))
            if plan.random() < 0.5:
                world.at(gone + plan.uniform(0.1, 20.0), partial(wishes.join, world, host, group))
    if plan.random() < 0.3:
        put_out = world.identity_of(plan.choice(members))
        when = begin + plan.uniform(5.0, 40.0)
        world.at(when, partial(wishes.remove, world, put_out, group))
        if plan.random() < 0.5:
            host = next(each for each in hosts if world.identity_of(each) == put_out)
            world.at(when + plan.uniform(0.1, 20.0), partial(wishes.join, world, host, group))
    if plan.random() < 0.4:
        back_after_s = plan.uniform(0.5, 20.0)
        world.at(plan.uniform(begin, trouble_s), partial(wishes.crash_focus, world, group, back_after_s))
    if plan.random() < 0.5:
        world.at(plan.uniform(trouble_s / 2, trouble_s + 40.0), partial(wishes.end, world, group))


def transcoder_dies(world: World, plan: seeded.Random, trouble_s: float) -> None:
    """The process that has a call's legs dies, in some seeds."""
    if plan.random() < 0.4:
        back_after_s = plan.uniform(0.5, 20.0)
        world.at(plan.uniform(5.0, trouble_s), partial(wishes.crash_transcoder, world, back_after_s))


def revocation(world: World, plan: seeded.Random, trouble_s: float) -> None:
    """An operator revokes something, and orders it once more when the trouble is over."""
    when = plan.uniform(10.0, trouble_s)
    if world.faults.revoke is Revoked.KEY:
        host = plan.choice(world.devices).host
        world.at(when, partial(wishes.revoke_key, world, host))
    else:
        world.at(when, partial(wishes.revoke_release, world))
    world.at(trouble_s + 15.0, partial(wishes.order_again, world))
