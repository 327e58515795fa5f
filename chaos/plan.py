"""What happens in a simulated world, from its seed: who dials whom, hangs up, is away, dies, and when."""

from __future__ import annotations

import random as seeded
from functools import partial
from typing import TYPE_CHECKING, Final

from chaos.conference_plan import conference, revocation, transcoder_dies
from chaos.faults import Revoked
from chaos.wire import Fuse

if TYPE_CHECKING:
    from chaos.simulator import World

TROUBLE_S: Final = 60.0  # how long the network's trouble goes on
_LAST_CRASH_S: Final = 10.0  # an idle process dies so long after it at the latest


def plan_for(world: World) -> None:
    """Put all of it into the world's calendar."""
    plan = seeded.Random(f"plan {world.seed}")
    for _ in range(world.faults.calls):
        caller, callee = _two_users(world, plan)
        when = plan.uniform(2.0, TROUBLE_S * 0.8)
        world.at(when, partial(world.dial, caller, callee))
        if plan.random() < 0.5:
            end = when + plan.uniform(0.0, 30.0)
            world.at(end, partial(world.hang_up, plan.choice((caller, callee))))
    for _ in range(world.faults.crashes):
        fuse = Fuse(plan.randint(1, 12), after=plan.random() < 0.5)
        world.at(plan.uniform(0.0, TROUBLE_S), partial(world.light, plan.choice(world.members), fuse))
    world.at(TROUBLE_S + _LAST_CRASH_S, world.put_out_fuses)
    if world.faults.away:
        _messages(world, plan)
    if world.faults.conference:
        conference(world, plan, TROUBLE_S)
    if world.faults.foreign:
        transcoder_dies(world, plan, TROUBLE_S)
    if world.faults.revoke is not Revoked.NOTHING:
        revocation(world, plan, TROUBLE_S)


def _messages(world: World, plan: seeded.Random) -> None:
    """A user's devices are off for a while; later messages are collected, or taken back."""
    user = plan.choice(world.devices).identity
    hosts = [device.host for device in world.devices if device.identity == user]
    off = plan.uniform(0.0, TROUBLE_S / 2)
    for host in hosts:
        world.at(off, partial(world.switch_off, host, plan.uniform(5.0, TROUBLE_S)))
    callers = [device for device in world.devices if device.identity != user]
    when = off + plan.uniform(0.0, 5.0)
    caller = plan.choice(callers).host
    world.at(when, partial(world.dial, caller, hosts[0]))
    world.at(when + plan.uniform(10.0, 40.0), partial(world.hang_up, caller))
    for host in plan.sample(hosts, plan.randint(1, len(hosts))):
        world.at(plan.uniform(TROUBLE_S, TROUBLE_S + 90.0), partial(world.collect, host))
    if plan.random() < 0.25:
        world.at(plan.uniform(TROUBLE_S / 2, TROUBLE_S + 90.0), partial(world.take_back, caller))


def _two_users(world: World, plan: seeded.Random) -> tuple[str, str]:
    """The hosts of two devices that are not the same user's."""
    caller = plan.choice(world.devices)
    others = [device for device in world.devices if device.identity != caller.identity]
    return caller.host, plan.choice(others).host
