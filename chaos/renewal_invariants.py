"""What must hold of every run for calls that go on under another key, or whose key was revoked:
chaos/invariants.py judges by these too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

from agents.handset.ue_call import main_of, renewal_of
from chaos.release_invariants import calls_at_rest, leg_keys_of
from chaos.silent_media import Opening
from chaos.simulator import World
from protocol.encoding import digest
from protocol.limits import OVERLAP_S
from protocol.secret import Secret
from storage.kms_records import Agreement, Subscriber
from storage.records import Key
from storage.ue_records import CallState, UeCall
from topics.messages import Revoke

_EPSILON_S: Final = 0.01
_UNDER_WAY_S: Final = 5  # what has begun at the very end of a run


def new_keys(world: World) -> Iterator[str]:
    """Every K was drawn, for one run alone; at each end n only grows, and F stays."""
    for grant in world.grants:
        if grant.key.reveal() not in world.observer.drawn and world.cast.kms is None:
            yield f"K of {grant.call} run {grant.n} was not drawn"
    for media in world.handsets:
        for before, after in pairwise_of_session(media.openings):
            if after.leg.group is None and after.leg.n < before.leg.n:
                yield f"{after.host} went back to run {after.leg.n} in {after.leg.session}"
    forks: dict[str, set[bytes]] = defaultdict(set)
    for (call, _), fork in world.observer.settled.items():
        forks[call].add(digest(fork))
    for call, names in forks.items():
        if len(names) > 1:
            yield f"{call} was settled for {len(names)} devices"


def same_devices(world: World) -> Iterator[str]:
    """A renewal is granted to the two devices that have the call, and to no other (OR-15, OR-22)."""
    first: dict[str, tuple[str, str | None]] = {}
    hosts = world.observer.hosts_of_keys
    for grant in world.grants:
        if not grant.n and world.observer.settled.get((grant.call, 0)) == grant.fork:
            first[grant.call] = (hosts[grant.caller_key], hosts.get(grant.callee_key or ""))
    for grant in world.grants:
        if grant.n and first.get(grant.call) != (hosts[grant.caller_key], hosts.get(grant.callee_key or "")):
            yield f"a renewal of {grant.call} was granted to other devices"


def old_keys_end(world: World) -> Iterator[str]:
    """When both ends have another key, the one before it is taken for OVERLAP_S at most (OR-28)."""
    by_key: dict[Secret, list[Opening]] = defaultdict(list)
    earlier: dict[int, list[Opening]] = {}
    for media in world.sessions:
        of_session: dict[str, list[Opening]] = defaultdict(list)
        for opening in media.openings:
            by_key[opening.leg.root].append(opening)
            earlier[id(opening)] = list(of_session[opening.leg.session])
            of_session[opening.leg.session].append(opening)
    for openings in by_key.values():
        for one in openings:
            for other in openings:
                if (one.leg.local, one.leg.remote) != (other.leg.remote, other.leg.local):
                    continue
                both = max(one.time, other.time) + OVERLAP_S + _EPSILON_S
                if both > world.time or any(
                    each.closed is not None and each.closed < both for each in (one, other)
                ):
                    continue
                for old in earlier[id(one)]:
                    if old.closed is None or old.closed > both:
                        yield f"{one.host} takes run {old.leg.n} of {one.leg.session} beside {one.leg.n}"


def renewals_at_rest(world: World) -> Iterator[str]:
    """Both ends of a call have the same run and K, and no renewal hangs."""
    up: dict[str, dict[str, UeCall]] = defaultdict(dict)
    for host, name, call in calls_at_rest(world):
        if call.state is CallState.UP:
            up[name.partition(" ")[2]][host] = call
            if call.give_up_at < world.now():
                yield f"{name} is up past its end"
        renewal = world.member(host).store
        key = UeCall.key_for(renewal_of(name))
        stored = dict(renewal.items()).get(key.name)
        if stored is not None and world.codec.decode(key, stored).started < world.now() - _UNDER_WAY_S:
            begun = world.codec.decode(key, stored)
            if begun.state is not CallState.ENDED and not (call.state is CallState.UP and call.renewing):
                yield f"a renewal of {name} was left behind"
    for call_name, ends in up.items():
        if len({(call.run.n, call.key) for call in ends.values()}) > 1:
            runs = {host: call.run.n for host, call in ends.items()}
            yield f"the ends of {call_name} have different keys: {runs}"


def revoked_keys_end(world: World) -> Iterator[str]:
    """What was granted to a key id before it was revoked is over at both ends, and at the KMS."""
    for _, order in world.orders:
        if not isinstance(order, Revoke):
            continue
        key = Subscriber.key_for(order.key_id)
        stored = dict(world.network.items()).get(key.name)
        revoked_at = 0 if stored is None else world.codec.decode(key, stored).revoked_at
        if stored is not None and not revoked_at:
            yield f"{order.key_id} was not revoked"
        gone = {
            secret: grant
            for grant in world.grants
            if order.key_id in {grant.caller_key, grant.callee_key} and grant.at <= revoked_at
            for secret in (grant.key, *leg_keys_of(world, grant))
        }
        for media in world.sessions:
            for leg in media.open.values():
                if leg.root in gone:
                    yield f"{leg.session} goes on though {order.key_id} was revoked"
        for host, name, call in calls_at_rest(world):
            if call.key in gone:
                yield f"{host} holds K of {name} though {order.key_id} was revoked"
        for name, value in world.network.items():
            if ":agreement:" in name:
                for run in world.codec.decode(Key(name, Agreement), value).runs:
                    if any(fork.key in gone for fork in run.forks):
                        yield f"the KMS holds K of {name} though {order.key_id} was revoked"


def pairwise_of_session(openings: list[Opening]) -> Iterator[tuple[Opening, Opening]]:
    """Each opening with the one after it in the same session."""
    by_session: dict[str, list[Opening]] = defaultdict(list)
    for opening in openings:
        by_session[main_of(opening.leg.session)].append(opening)
    for found in by_session.values():
        yield from pairwise(found)
