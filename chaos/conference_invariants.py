"""What must hold of every run for conferences: chaos/invariants.py judges by these too.

Each epoch's key is drawn, and is in the hands of those on its roster alone; on the roster is who has asked to
be, by a token of its own; who has left has no part in what is said from then on.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Final

from chaos.observer import Epoch
from chaos.plan import TROUBLE_S
from chaos.renewal_invariants import pairwise_of_session
from chaos.silent_media import Opening
from chaos.simulator import EPOCH, World
from protocol.encoding import digest
from protocol.limits import OVERLAP_S
from storage.attendance_records import Attendance, Attendances, AttendanceState
from storage.focus_records import AttendeeState, Conference, ConferenceState
from storage.kms_records import Group
from storage.records import Key
from topics.catalogue import REPORTS
from topics.messages import (
    ConferenceEvent,
    ConferenceReport,
    JoinConference,
    LeaveOk,
    PutOut,
    Report,
    ReportEvent,
    Revoke,
)

_SOON_S: Final = 2.0  # an epoch without a leaver is in use so long after it was told that it has left
_EPOCHS_MAX: Final = 40  # of one conference; the plan has a reason for half as many
_HEALED_S: Final = TROUBLE_S + 45.0  # or by then: who died is back, what was lost was repeated


def drawn_alone(world: World) -> Iterator[str]:
    """Each K_e was drawn for this epoch, and is no other key."""
    for epoch in world.observer.epochs:
        if epoch.key.reveal() not in world.observer.drawn:
            yield f"K_e of epoch {epoch.epoch} was not drawn"
    keys = Counter([*(each.key for each in world.observer.epochs), *(each.key for each in world.grants)])
    made = Counter((epoch.group, epoch.epoch) for epoch in world.observer.epochs)
    for epoch in world.observer.epochs:
        if keys[epoch.key] > 1:
            yield f"K_e of epoch {epoch.epoch} is another key as well"
        if made[epoch.group, epoch.epoch] > 1:
            yield f"two keys for epoch {epoch.epoch}"


def epochs_have_a_reason(world: World) -> Iterator[str]:
    """The focus does not ask for one epoch after the other, for ever."""
    for group, count in Counter(epoch.group for epoch in world.observer.epochs).items():
        if count > _EPOCHS_MAX:
            yield f"{count} epochs of {group.hex()}"


def epoch_holders(world: World) -> Iterator[str]:
    """K_e is in the records and the media of its roster's devices and of a focus that mixes, and of nobody
    else; and whoever has media in a conference has it under the key of that epoch."""
    by_key = {epoch.key: epoch for epoch in world.observer.epochs}
    held = {key: set(hosts) for key, hosts in world.observer.epochs_held.items()}
    for opening in _openings(world):
        held.setdefault(opening.leg.root, set()).add(opening.host)
        epoch = by_key.get(opening.leg.root)
        if epoch is None or (epoch.group, epoch.epoch) != (opening.leg.group, opening.leg.n):
            yield f"{opening.host} has media in epoch {opening.leg.n} under another key"
        elif not {opening.leg.local, opening.leg.remote} <= epoch.roster | {epoch.focus}:
            yield f"{opening.host} has media with {opening.leg.remote}, who is not in epoch {epoch.epoch}"
    for key, hosts in held.items():
        if key not in by_key:
            yield f"{', '.join(sorted(hosts))} holds a K_e that the KMS has no record of"
            continue
        for host in sorted(hosts - _allowed(world, by_key[key])):
            yield f"{host} holds K_e of epoch {by_key[key].epoch}, in which it is not"


def let_in_by_token(world: World) -> Iterator[str]:
    """On a roster is only who has sealed a token for this conference."""
    for epoch in world.observer.epochs:
        for member in epoch.members:
            if (epoch.group, member.identity, member.token_hash) not in world.observer.tokens:
                yield f"{member.identity} is in epoch {epoch.epoch} and has not asked to be"


def same_roster(world: World) -> Iterator[str]:
    """What members are told of who is in is what the KMS has made the epoch for."""
    rosters = {(epoch.group, epoch.epoch): epoch.roster for epoch in world.observer.epochs}
    inside = {ReportEvent.JOINED, ReportEvent.EPOCH}
    for _, record, message in world.messages():
        if record.topic != REPORTS.name or not isinstance(message, Report) or message.event not in inside:
            continue
        assert message.group is not None
        if set(message.roster) != rosters.get((message.group, message.epoch or 0)):
            yield f"{message.device} was told another roster of epoch {message.epoch}"
    for _, _, said in world.sent():
        if not isinstance(said, ConferenceReport) or said.event is not ConferenceEvent.EPOCH:
            continue
        if set(said.roster) != rosters.get((said.group, said.epoch)):
            yield f"the focus was told another roster of epoch {said.epoch}"


def nothing_survives_its_leaver(world: World) -> Iterator[str]:
    """Once it was told that it is out, no epoch is made with its token, and soon nobody says or hears
    anything under a key that it had. Who misses that it was put out, or the end of a whole conference, speaks
    to nobody until its key ends."""
    ended = {group for group, known in _conferences(world).items() if known.state is ConferenceState.ENDED}
    gone: dict[tuple[bytes, bytes], float] = {}
    put_out: set[bytes] = set()
    for when, _, message in world.sent():
        about = (message.group, message.call) if isinstance(message, LeaveOk | PutOut) else None
        if about is None or about not in world.observer.attended:
            continue
        if isinstance(message, PutOut) and message.reason in {"ended", "not-in"}:
            continue
        if isinstance(message, LeaveOk) and not world.observer.attended[about][2]:
            continue  # not its own leave
        gone.setdefault(about, when)
        if isinstance(message, PutOut):
            put_out.add(message.call)
    by_token: dict[tuple[bytes, bytes], list[Epoch]] = defaultdict(list)
    for epoch in world.observer.epochs:
        for member in epoch.members:
            by_token[epoch.group, member.token_hash].append(epoch)
    by_epoch: dict[tuple[bytes | None, int], list[Opening]] = defaultdict(list)
    for opening in _openings(world):
        by_epoch[opening.leg.group, opening.leg.n].append(opening)
    mixing = set(world.bridges)
    for (group, call), when in gone.items():
        identity, token_hash, _ = world.observer.attended[group, call]
        until = _until(world, when)
        for epoch in by_token[group, token_hash]:
            if epoch.at - EPOCH > until:
                yield f"{identity} has gone, and is in epoch {epoch.epoch}"
            for opening in by_epoch[group, epoch.epoch]:
                if (
                    call in put_out
                    and opening.leg.session.endswith(call.hex())
                    and opening.host not in mixing
                ):
                    continue
                closed = world.time if opening.closed is None else opening.closed
                if closed > until and group not in ended:
                    yield f"{opening.host} uses epoch {epoch.epoch}, whose key {identity} had, and has gone"


def revoked_members_are_out(world: World) -> Iterator[str]:
    """Soon after a key id was revoked no epoch has a member by it, and nobody uses one that had."""
    for when, order in world.orders:
        if not isinstance(order, Revoke):
            continue
        with_it = {
            (epoch.group, epoch.epoch): epoch
            for epoch in world.observer.epochs
            if any(member.key_id == order.key_id for member in epoch.members)
        }
        for epoch in with_it.values():
            if epoch.at - EPOCH > when + _SOON_S:
                yield f"{order.key_id} was revoked, and is in epoch {epoch.epoch}"
        ended = {group for group, each in _conferences(world).items() if each.state is ConferenceState.ENDED}
        for opening in _openings(world):
            group = opening.leg.group
            if group is None or group in ended or (group, opening.leg.n) not in with_it:
                continue
            if opening.closed is None or opening.closed > when + _SOON_S + OVERLAP_S:
                yield f"{opening.host} uses epoch {opening.leg.n}, in which revoked {order.key_id} was"


def never_back(world: World) -> Iterator[str]:
    """No member goes back to an earlier epoch (OR-29)."""
    for media in world.handsets:
        for before, after in pairwise_of_session(media.openings):
            if after.leg.group is not None and after.leg.n <= before.leg.n:
                yield f"{after.host} took epoch {after.leg.n} after {before.leg.n}"


def attendances_at_rest(world: World) -> Iterator[str]:
    """Who is in is in the last epoch, at the KMS, at the focus and in media, and speaks to the focus that is
    there; and the KMS counts in nobody else, but for whom the focus could not know to be gone."""
    groups, conferences = _groups(world), _conferences(world)
    present: dict[bytes, set[str]] = defaultdict(set)
    for host, known in _attendances(world):
        match known.state:
            case AttendanceState.OUT:
                continue
            case AttendanceState.IN:
                present[known.group].add(known.run.caller)
                conference = conferences.get(known.group)
                if conference is not None and conference.state is ConferenceState.OPEN:
                    yield from _is_in(world, host, known, groups.get(known.group), conference)
                elif world.now() > known.give_up_at:
                    yield f"{host} is in a conference that has ended"
            case _:
                yield f"{host} is still {known.state} a conference"
    for group, conference in conferences.items():
        if conference.state is ConferenceState.ENDED:
            continue
        if conference.asked or conference.queue:
            yield f"the focus still asks for an epoch after {conference.epoch}"
        made = groups.get(group)
        if made is None or world.faults.splice:  # an outsider can tell a member that it was put out
            continue
        for member in made.members:
            host = world.observer.hosts_of_keys[member.key_id]
            if not world.member(host).crashed_at and member.identity not in present[group]:
                yield f"{member.identity} is in epoch {made.epoch}, and its device is not"


def wishes_to_join_answered(world: World) -> Iterator[str]:
    """Each wish to be in was told to have come true or not, unless the handset died after it. Where a wish to
    leave came before that, this is what the device tells of."""
    last: dict[str, float] = {}
    told: set[bytes | None] = set()
    over = {ReportEvent.JOINED, ReportEvent.LEFT_CONFERENCE}
    for when, record, message in world.messages():
        if record.topic == REPORTS.name and isinstance(message, Report) and message.event in over:
            told.add(message.request)
            last[message.device] = when
    for when, record, message in world.messages():
        if isinstance(message, JoinConference) and message.request not in told:
            host = record.topic.removeprefix("ims.ue.")
            died = any(crash >= when for crash in world.member(host).crashed_at)
            if not died and last.get(message.to, 0.0) < when:
                yield f"nobody was told how the joining of {message.to} went"


def _is_in(
    world: World, host: str, known: Attendance, made: Group | None, conference: Conference
) -> Iterator[str]:
    if made is None or (made.epoch, made.key) != (known.epoch, known.key):
        yield f"{host} is in epoch {known.epoch}, and the last one is {made and made.epoch}"
        return
    if digest(known.token) not in {each.token_hash for each in made.members}:
        yield f"{host} is in, and the KMS does not know"
    name = (known.run.caller, known.run.call)
    attendee = next((each for each in conference.members if (each.identity, each.call) == name), None)
    if attendee is None or attendee.state is not AttendeeState.IN:
        yield f"{host} is in, and the focus does not know"
        return
    mixer = next((each for each in world.members if each.instance == conference.instance), None)
    if mixer is None or mixer.loop is None:
        yield f"{host} is in a conference that nobody mixes"
        return
    heard = attendee.in_use == made.epoch or world.faults.splice  # an outsider can unregister a device
    if not heard or conference.epoch != made.epoch:
        yield f"the focus does not know that {host} uses epoch {made.epoch}"
    if attendee.line is None or known.focus_media != mixer.lines[attendee.line]:
        yield f"{host} speaks to {known.focus_media}, and {mixer.name} does not listen there"
    mixed = [leg for leg in world.bridges[mixer.name].open.values() if leg.remote == known.run.caller]
    said = [leg for media in world.handsets for name, leg in media.open.items() if name == known.session]
    if [leg.root for leg in (*mixed, *said) if leg.group == known.group] != [made.key, made.key]:
        yield f"{host} and the focus do not hear each other in epoch {made.epoch}"


def _until(world: World, when: float) -> float:
    faults = world.faults
    calm = not (faults.drop or faults.duplicate or faults.delay_s or faults.crashes or faults.splice)
    if calm and not any(member.crashed_at for member in world.members):
        return when + _SOON_S + OVERLAP_S
    return max(when + _SOON_S, _HEALED_S) + OVERLAP_S


def _allowed(world: World, epoch: Epoch) -> set[str]:
    hosts = {world.observer.hosts_of_keys[member.key_id] for member in epoch.members}
    return hosts | (set(world.bridges) if epoch.mixes else set())


def _openings(world: World) -> Iterator[Opening]:
    for media in world.sessions:
        yield from (opening for opening in media.openings if opening.leg.group is not None)


def _attendances(world: World) -> Iterator[tuple[str, Attendance]]:
    for member in world.members:
        for name, value in member.store.items() if member.devices else ():
            if ":attendances:" in name:
                for known in world.codec.decode(Key(name, Attendances), value).known:
                    yield member.name, known


def _groups(world: World) -> dict[bytes, Group]:
    return {
        bytes.fromhex(name.rpartition(" ")[2]): world.codec.decode(Key(name, Group), value)
        for name, value in world.network.items()
        if name.startswith("kms:") and ":group:" in name
    }


def _conferences(world: World) -> dict[bytes, Conference]:
    found = (
        world.codec.decode(Key(name, Conference), value)
        for name, value in world.network.items()
        if name.startswith("conference:") and ":conference:" in name
    )
    return {each.group: each for each in found}
