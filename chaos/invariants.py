"""What must hold of every run of the simulator, whatever was lost, repeated, reordered or crashed.

Each function yields the violations that it finds, as sentences. They judge the history from outside: what was
stored, what was on the bus, what media was opened under which key.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from agents.handset.ue_call import main_of
from chaos.conference_invariants import (
    attendances_at_rest,
    drawn_alone,
    epoch_holders,
    epochs_have_a_reason,
    let_in_by_token,
    never_back,
    nothing_survives_its_leaver,
    revoked_members_are_out,
    same_roster,
    wishes_to_join_answered,
)
from chaos.mailbox_invariants import (
    answers_are_sealed,
    blind,
    gone,
    kept_until_collected,
    messages_at_rest,
    nothing_else_is_held,
)
from chaos.release_invariants import (
    deaf,
    is_to_transcoder,
    leg_keys_of,
    legs_at_rest,
    legs_of_their_own,
    notices_in_order,
    release_revoked,
)
from chaos.renewal_invariants import (
    new_keys,
    old_keys_end,
    renewals_at_rest,
    revoked_keys_end,
    same_devices,
)
from chaos.simulator import BOUND_S, EPOCH, World
from protocol.limits import RING_S
from protocol.secret import Secret
from storage.kms_records import Agreement
from storage.records import Key
from storage.ue_records import CallState, UeCall
from topics.catalogue import KMS, REPORTS, Party
from topics.codec import decode
from topics.messages import Audit, AuditEvent, Dial, KeyRequest, KeyResponse, Refusal, Report, ReportEvent

DESTROYED_WITHIN_S: Final = 20  # the sweep is an alarm, and who holds the partition may be dead just then


def violations(world: World) -> list[str]:
    """All that is wrong with this run; empty when it is as it should be."""
    return [f"seed {world.seed}: {violation}" for judge in JUDGES for violation in judge(world)]


def one_key(world: World) -> Iterator[str]:
    """Each answering device has a K of its own, the caller has that of one of them, and what is used was
    granted for this call."""
    granted = defaultdict(set)
    for grant in world.grants:
        granted[grant.call, grant.n].add(grant.key)
    made = Counter((grant.call, grant.n, grant.callee_key) for grant in world.grants)
    for (call, n, callee_key), count in made.items():
        if count > 1:
            yield f"two Ks for {callee_key or 'the mailbox'} in {call} run {n}"
    for key, count in Counter(grant.key for grant in world.grants).items():
        if count > 1:
            calls = sorted({f"{grant.call} run {grant.n}" for grant in world.grants if grant.key == key})
            yield f"one K for two: {', '.join(calls)}"
    used: dict[tuple[str, int, str], set[Secret]] = defaultdict(set)
    for media in world.handsets:
        for opening in media.openings:
            if opening.leg.group is not None or is_to_transcoder(world, opening.leg):
                continue
            call = opening.leg.session.partition(" ")[2]
            used[call, opening.leg.n, opening.host].add(opening.leg.root)
            if opening.leg.root not in granted[call, opening.leg.n]:
                yield f"a K that was not granted for {call} run {opening.leg.n}"
            if opening.leg.local != world.identity_of(opening.host):
                yield f"{opening.host} sends as {opening.leg.local} in {call}"
    for (call, n, host), keys in used.items():
        if len(keys) > 1:
            yield f"{len(keys)} Ks at {host} in {call} run {n}"


def holders(world: World) -> Iterator[str]:
    """A K is in the hands of the caller's device and of the device that it was made for; that of a message in
    the hands of the caller's device and of devices of the callee."""
    for grant in world.grants:
        allowed = {world.observer.hosts_of_keys[grant.caller_key]}
        if grant.callee_key is not None:
            allowed.add(world.observer.hosts_of_keys[grant.callee_key])
        else:
            allowed |= {device.host for device in world.devices if device.identity == grant.callee}
        for host in sorted(world.observer.held.get(grant.key, set()) - allowed):
            yield f"{host} holds K of {grant.call}, made for {grant.callee_key or grant.callee}"


def destroyed(world: World) -> Iterator[str]:
    """The KMS keeps no K whose time is over: a loser's, an unsettled one after RING_S, that of a message."""
    for name, value in world.network.items():
        if ":agreement:" not in name:
            continue
        for run in world.codec.decode(Key(name, Agreement), value).runs:
            for fork in run.forks:
                over = fork.granted + RING_S if run.settled is None else fork.not_after
                lost = run.settled is not None and run.settled != fork.name
                if fork.key is not None and (lost or world.now() > over + DESTROYED_WITHIN_S):
                    yield f"the KMS still holds K of {fork.callee_key} in {name}"
            deposit = run.deposit
            if deposit is None or deposit.key is None:
                continue
            if run.settled or world.now() > deposit.not_after + DESTROYED_WITHIN_S:
                yield f"the KMS still holds K of the message in {name}"


def settled_truly(world: World) -> Iterator[str]:
    """A first run is settled for the device, or the mailbox, whose K the caller's device has taken."""
    for name, value in world.network.items():
        if ":agreement:" not in name:
            continue
        call = name.partition(":agreement:")[2]
        for run in world.codec.decode(Key(name, Agreement), value).runs:
            if run.n:  # the KMS has settled it as it granted
                continue
            won = next((fork.callee_key for fork in run.forks if fork.name == run.settled), None)
            keys = [
                grant.key
                for grant in world.grants
                if (grant.call, grant.n, grant.callee_key) == (call, run.n, won)
            ]
            callers = {device.host for device in world.devices if device.identity == call.rpartition("/")[0]}
            if run.settled is not None and not any(
                callers & world.observer.held.get(key, set()) for key in keys
            ):
                yield f"settled for what the caller did not take: {name}"


def secrecy(world: World) -> Iterator[str]:
    """No K, no key that follows from it, no K_e and no K_x is in any octets on the bus."""
    wire = b"\0".join(record.value or b"" for _, record in world.history)
    for grant in world.grants:
        if grant.key.reveal() in wire:
            yield f"K of {grant.call} in clear on the bus"
        if any(key.reveal() in wire for key in leg_keys_of(world, grant)):
            yield f"a leg key of {grant.call} in clear on the bus"
    for epoch in world.observer.epochs:
        if epoch.key.reveal() in wire:
            yield f"K_e of epoch {epoch.epoch} in clear on the bus"
    for key_id, key in world.observer.keys.items():
        if key.reveal() in wire:
            yield f"K_x of {key_id} in clear on the bus"


def lifetimes(world: World) -> Iterator[str]:
    """Nothing is granted after its end, and no media is open past it."""
    ends = {grant.key: grant.not_after for grant in world.grants}
    ends |= {key: grant.not_after for grant in world.grants for key in leg_keys_of(world, grant)}
    ends |= {epoch.key: epoch.not_after for epoch in world.observer.epochs}
    by_fork = defaultdict(list)
    for grant in world.grants:
        if grant.callee_key is not None:
            by_fork[grant.call, grant.n].append(grant)
    settled: dict[str, float] = {}
    for when, _, message in world.sent():
        if isinstance(message, Audit) and message.event is AuditEvent.SETTLED and message.call:
            settled.setdefault(f"{message.caller}/{message.call.hex()}", when)
        if isinstance(message, KeyResponse):
            call = f"{message.caller}/{message.call.hex()}"
            for grant in by_fork[call, message.run]:
                if EPOCH + int(when) > grant.not_after:
                    yield f"granted after its end: {call}"
                if not message.run and call not in settled and EPOCH + int(when) > grant.at + RING_S:
                    yield f"granted unsettled after RING_S: {call}"
    for media in world.sessions:
        for leg in media.open.values():
            if world.now() > ends.get(leg.root, world.now()):
                yield f"media open past its key's end: {leg.session}"


def audit(world: World) -> Iterator[str]:
    """Every stored grant has exactly one audit event, and no grant left before it (OR-16)."""
    told: dict[tuple[str, int, str], set[bytes]] = defaultdict(set)
    for _, _, message in world.sent():
        granting = {AuditEvent.GRANTED, AuditEvent.DEPOSITED}
        if isinstance(message, Audit) and message.event in granting and message.call:
            call = f"{message.caller}/{message.call.hex()}"
            told[call, message.run or 0, message.callee_key or ""].add(message.id)
        if isinstance(message, KeyResponse):
            call = f"{message.caller}/{message.call.hex()}"
            if not any((known, n) == (call, message.run) for known, n, _ in told):
                yield f"granted before the audit knew: {call}"
    for grant in world.grants:
        ids = told[grant.call, grant.n, grant.callee_key or ""]
        if len(ids) != 1:
            yield f"{len(ids)} audit events for a grant: {grant.call}"


def answers(world: World) -> Iterator[str]:
    """Whoever's REQUEST was committed has been answered for it: a crash repeats work, it never loses it."""
    asked: Counter[tuple[str, bytes, str]] = Counter()
    committed = world.broker.committed(Party.KMS, KMS.name)
    for record in world.broker.records(KMS.name):
        message = decode(record.value)
        ours = record.value not in world.splicer.sent  # an outsider may ask for a host that does not exist
        if ours and isinstance(message, KeyRequest) and record.offset < committed[record.partition]:
            asked[message.caller, message.call, message.sender.device] += 1
    answered: Counter[tuple[str, bytes, str]] = Counter()
    for _, sent, message in world.sent():
        if isinstance(message, KeyResponse | Refusal) and message.to and sent.topic.startswith("ims.ue."):
            answered[message.caller, message.call, message.to] += 1
    for who, count in asked.items():
        if answered[who] < count:
            yield f"{count} requests of {who[2]} committed, {answered[who]} answered"


def at_rest(world: World) -> Iterator[str]:
    """After the last fault every call ends or comes up, at both ends, within the bound."""
    up: dict[str, set[str]] = defaultdict(set)
    for member in world.members:
        for name, call in calls_of(world, member.name):
            call_name = name.partition(" ")[2]
            if name != main_of(name):  # renewal_invariants.py
                continue
            if call.state is CallState.UP:
                up[call_name].add(member.name)
            elif call.state is not CallState.ENDED:
                yield f"{call_name} is {call.state} at {member.name} {BOUND_S} s after the last fault"
    for call_name, hosts in up.items():
        if len(hosts) != 2:
            yield f"{call_name} is up at {', '.join(sorted(hosts))} only"
    yield from _every_wish_answered(world)


def _every_wish_answered(world: World) -> Iterator[str]:
    """Each Dial was told to have come up or ended, unless the handset died after it."""
    told = {
        message.request
        for _, record, message in world.messages()
        if record.topic == REPORTS.name
        and isinstance(message, Report)
        and message.event in {ReportEvent.UP, ReportEvent.ENDED}
    }
    for when, record, message in world.messages():
        if isinstance(message, Dial) and message.request not in told:
            host = record.topic.removeprefix("ims.ue.")
            if not any(crash >= when for crash in world.member(host).crashed_at):
                yield f"nobody was told how the call of {message.to} went"


def buried(world: World) -> Iterator[str]:
    """Nothing that our own parties sent is malformed."""
    for _, record in world.history:
        if record.topic == "ims.dead-letters" and record.value not in world.splicer.sent:
            yield f"dead letter: {dict(record.headers).get('reason')!r}"


def calls_of(world: World, host: str) -> Iterator[tuple[str, UeCall]]:
    """The call records of a UE host: session and record."""
    store = world.member(host).store
    for name, value in store.items():
        if name.startswith("ue:") and ":call:" in name:
            yield name.partition(":call:")[2], world.codec.decode(Key(name, UeCall), value)


JUDGES: Final = (
    one_key,
    holders,
    destroyed,
    settled_truly,
    secrecy,
    lifetimes,
    audit,
    answers,
    at_rest,
    buried,
    blind,
    nothing_else_is_held,
    answers_are_sealed,
    kept_until_collected,
    gone,
    messages_at_rest,
    legs_of_their_own,
    deaf,
    release_revoked,
    legs_at_rest,
    notices_in_order,
    new_keys,
    same_devices,
    old_keys_end,
    renewals_at_rest,
    revoked_keys_end,
    drawn_alone,
    epochs_have_a_reason,
    epoch_holders,
    let_in_by_token,
    same_roster,
    nothing_survives_its_leaver,
    never_back,
    revoked_members_are_out,
    attendances_at_rest,
    wishes_to_join_answered,
)
