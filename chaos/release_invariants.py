"""What must hold of every run for calls with a transcoder: chaos/invariants.py judges by these too.

A transcoder has the two leg keys of the runs that it was released, and nothing from which K would follow;
what was revoked is not released again; a notice is taken once; what is up at rest has sound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from agents.handset.ue_call import main_of, needs_transcoder
from chaos.observer import Granted
from chaos.simulator import World
from chaos.wishes import legs_of
from media.leg import Leg
from protocol.secret import Secret
from protocol.sharding import call_key
from storage.records import Key
from storage.transcoder_records import LegsState
from storage.ue_records import CallState, UeCall
from topics.messages import Audit, AuditEvent, ReleaseResponse, RevokeRelease

OVER_WITHIN_S: Final = 10.0  # of the last order: legs are closed once both ends or call control have heard


def legs_of_their_own(world: World) -> Iterator[str]:
    """Media towards a transcoder, and its own, is under the leg key of this end, run and device; and K itself
    is not used where two ends share no codec."""
    if world.transcoder is None:
        return
    made = {
        (call, grant.n, identity): key
        for grant in world.grants
        for key, identity in leg_keys_of(world, grant).items()
        if world.observer.settled.get((call := grant.call, grant.n)) == grant.fork
    }
    for media in (*world.handsets, *world.bridges.values()):
        for opening in media.openings:
            leg = opening.leg
            if leg.group is not None:
                continue
            if is_to_transcoder(world, leg):
                about = (leg.session.partition(" ")[2], leg.n, leg.local)
            elif leg.local == world.transcoder.identity:
                about = (leg.session.partition(" ")[0], leg.n, leg.remote)
            elif not leg.to_mailbox and _is_foreign(world, leg.local) != _is_foreign(world, leg.remote):
                yield f"{opening.host} has used K of {leg.session} itself, without a codec in common"
                continue
            else:
                continue
            if made.get(about) != leg.root:
                yield f"{opening.host} has a leg of {about[0]} run {leg.n} under another key"


def deaf(world: World) -> Iterator[str]:
    """What a transcoder stores, and what it opens media with, is no K."""
    octets = b"\0".join(world.observer.transcoder_octets)
    own = {opening.leg.root for media in world.bridges.values() for opening in media.openings}
    for grant in world.grants:
        if grant.key.reveal() in octets or any(key.reveal() in octets for key in leg_keys_of(world, grant)):
            yield f"a key of {grant.call} in a record of the transcoder"
        if grant.key in own:
            yield f"a transcoder holds K of {grant.call}"
    for key_id, key in world.observer.keys.items():
        if key.reveal() in octets:
            yield f"K_x of {key_id} in a record of the transcoder"


def release_revoked(world: World) -> Iterator[str]:
    """Once a release was revoked, no leg of the call is released under any n, and soon none is open."""
    revoked: dict[str, float] = {}
    for when, _, message in world.sent():
        if isinstance(message, Audit) and message.event is AuditEvent.RELEASE_REVOKED and message.call:
            revoked.setdefault(call_key(message.caller or "", message.call), when)
        elif isinstance(message, ReleaseResponse) and call_key(message.caller, message.call) in revoked:
            yield f"released anew after it was revoked: {call_key(message.caller, message.call)}"
    for when, order in world.orders:
        if not isinstance(order, RevokeRelease) or call_key(order.caller, order.call) not in revoked:
            continue
        for media in world.bridges.values():
            for opening in media.openings:
                of_call = opening.leg.session.partition(" ")[0] == call_key(order.caller, order.call)
                if of_call and (opening.closed is None or opening.closed > when + OVER_WITHIN_S):
                    yield f"a leg is open though its release was revoked: {opening.leg.session}"


def notices_in_order(world: World) -> Iterator[str]:
    """No handset takes a notice after a later one (OR-27)."""
    yield from world.observer.backwards


def legs_at_rest(world: World) -> Iterator[str]:
    """A call that is up without a codec in common has both its legs, at the process that is there."""
    if world.transcoder is None:
        return
    legs = {call_key(each.run.caller, each.run.call): each for each in legs_of(world)}
    alive = {member.instance: member for member in world.members if member.loop is not None}
    for host, name, call in calls_at_rest(world):
        if call.state is not CallState.UP or not needs_transcoder(call):
            continue
        call_name = name.partition(" ")[2]
        known = legs.get(call_name)
        if known is None or known.state is not LegsState.RUNNING or known.instance not in alive:
            yield f"{call_name} is up at {host} without a transcoder"
            continue
        member = alive[known.instance]
        leg = next((media.open[name] for media in world.handsets if name in media.open), None)
        if leg is None or leg.remote_address not in {member.lines[line] for line in known.lines}:
            yield f"{host} does not speak to the transcoder of {call_name} as it is"
        elif leg.n != call.run.n or known.run.n != call.run.n:
            yield f"{call_name} has legs of run {known.run.n}, {host} speaks under {leg.n} in {call.run.n}"


def leg_keys_of(world: World, grant: Granted) -> Mapping[Secret, str]:
    """What each end of a call would share with the transcoder, if there is one."""
    if world.transcoder is None or grant.callee_key is None:
        return {}
    return grant.leg_keys(world.transcoder.identity)


def is_to_transcoder(world: World, leg: Leg) -> bool:
    """Whether a handset's leg goes there."""
    return world.transcoder is not None and leg.remote == world.transcoder.identity


def calls_at_rest(world: World) -> Iterator[tuple[str, str, UeCall]]:
    """Every call at every end: host, session and record."""
    for member in world.members:
        for name, value in member.store.items() if member.devices else ():
            session = name.partition(":call:")[2]
            if name.startswith("ue:") and session and session == main_of(session):
                yield member.name, session, world.codec.decode(Key(name, UeCall), value)


def _is_foreign(world: World, identity: str) -> bool:
    return identity == world.devices[-1].identity
