"""What must hold of every run for messages that were left: chaos/invariants.py judges by these too.

A mailbox holds no key; who fetches gets the key that was made when the message was left, and nobody else gets
it; a message that was confirmed as left is there until it is collected with proof or its time is over, and
then it is gone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from chaos.observer import Granted
from chaos.simulator import EPOCH, World
from protocol.deferred import proof_of
from protocol.description import Description, Flow
from protocol.encoding import digest
from protocol.names import Role, Run, Suite
from protocol.sharding import call_key
from storage.records import Key
from storage.ue_records import Collecting, CollectingState
from storage.voicemail_records import MessageState, Part, StoredMessage
from topics.catalogue import Party
from topics.messages import ByeOk, Collected, CollectedOk, FetchResponse

GONE_WITHIN_S: Final = 30  # by an alarm, and who holds the partition may be dead just then


def blind(world: World) -> Iterator[str]:
    """A mailbox stores neither a K nor a K_x."""
    octets = b"\0".join(world.observer.mailbox_octets)
    for grant in world.grants:
        if grant.key.reveal() in octets:
            yield f"K of {grant.call} in a record of the mailbox"
    for key_id, key in world.observer.keys.items():
        if key.reveal() in octets:
            yield f"K_x of {key_id} in a record of the mailbox"


def nothing_else_is_held(world: World) -> Iterator[str]:
    """Every K that a handset holds, or that a corrupt one was told, is one that the KMS has made for a call
    or a message; and a fetch tells the key of a message only."""
    granted = {grant.key: grant for grant in world.grants}
    for key, hosts in world.observer.held.items():
        if key not in granted:
            yield f"{', '.join(sorted(hosts))} holds a K that the KMS has no record of"
    for key in world.insider.learned:
        grant = granted.get(key)
        if grant is None or grant.callee_key is not None:
            yield f"a fetch has told {world.insider.device.impi} a K that is no message's"


def answers_are_sealed(world: World) -> Iterator[str]:
    """Media to a mailbox, and what is heard from one, is as the answer says that the KMS has sealed."""
    sealed = {grant.key: grant.answer_hash for grant in world.grants if grant.answer_hash is not None}
    for media in world.handsets:
        legs = [opening.leg for opening in media.openings if opening.leg.to_mailbox]
        for leg in (*legs, *(listening.leg for listening in media.listenings)):
            answer = Description((leg.suite,), (leg.codec,), Flow.RECVONLY).octets
            if leg.root in sealed and digest(answer) != sealed[leg.root]:
                yield f"media of {leg.session} under an answer that was not sealed"


def kept_until_collected(world: World) -> Iterator[str]:
    """What was confirmed as left is in the store, unless who has K let it be deleted, or its time is over."""
    confirmed: dict[tuple[str, str, bytes], int] = {}
    for when, _, said in world.sent():
        if isinstance(said, ByeOk) and said.by is Role.MAILBOX and said.kept:
            confirmed.setdefault((said.caller, said.callee, said.call), said.kept)
        if isinstance(said, FetchResponse):
            for grant in _deposits(world, said.caller, said.call):
                if EPOCH + int(when) > grant.not_after:
                    yield f"the key of a message was given out after its end: {grant.call}"
    messages, parts = _stored(world)
    proven = _proven(world)
    for (caller, callee, call), kept in confirmed.items():
        name = call_key(caller, call)
        message, packets = messages.get((callee, name)), parts[callee, name]
        over = any(world.now() > grant.not_after for grant in _deposits(world, caller, call))
        if (callee, name) in proven or over:
            continue
        if message is None or message.state is not MessageState.LEFT:
            yield f"a message that was confirmed is not there, and nobody has proved anything: {name}"
        elif not kept <= message.packets == packets:
            yield f"{kept} packets were confirmed, {message.packets} told and {packets} are there: {name}"


def gone(world: World) -> Iterator[str]:
    """A message whose deletion was confirmed, or whose time is over, has left nothing behind."""
    messages, parts = _stored(world)
    ended = {
        (grant.callee, grant.call)
        for grant in world.grants
        if grant.callee_key is None and world.now() > grant.not_after + GONE_WITHIN_S
    }
    for _, _, message in world.sent():
        if isinstance(message, CollectedOk):
            ended.add((message.callee, call_key(message.caller, message.call)))
    for about in ended:
        stored = messages.get(about)
        if (stored is not None and stored.state is MessageState.LEFT) or parts[about]:
            yield f"a message is still there: {about[1]}"


def messages_at_rest(world: World) -> Iterator[str]:
    """After the last fault no message is still being left or collected."""
    messages, _ = _stored(world)
    for (_, name), message in messages.items():
        if message.state not in {MessageState.LEFT, MessageState.ENDED}:
            yield f"message {name} is still {message.state}"
    for member in world.members:
        if member.party is not Party.UE:
            continue
        for name, value in member.store.items():
            if ":collecting:" in name:
                collecting = world.codec.decode(Key(name, Collecting), value)
                if collecting.state is not CollectingState.DONE:
                    yield f"{member.name} is still {collecting.state} {collecting.session}"


def _stored(world: World) -> tuple[dict[tuple[str, str], StoredMessage], dict[tuple[str, str], int]]:
    """The mailbox's messages, and how many packets it has of each: by ID-B, and ID-A with C."""
    messages: dict[tuple[str, str], StoredMessage] = {}
    parts: dict[tuple[str, str], int] = defaultdict(int)
    for name, value in world.network.items():
        if name.startswith("voicemail:") and ":message:" in name:
            callee, _, call = name.partition(":message:")[2].partition(" ")
            messages[callee, call] = world.codec.decode(Key(name, StoredMessage), value)
        elif name.startswith("voicemail:") and ":part:" in name:
            callee, call, _ = name.partition(":part:")[2].split(" ")
            parts[callee, call] += len(world.codec.decode(Key(name, Part), value).packets)
    return messages, parts


def _deposits(world: World, caller: str, call: bytes) -> list[Granted]:
    name = call_key(caller, call)
    return [grant for grant in world.grants if grant.call == name and grant.callee_key is None]


def _proven(world: World) -> set[tuple[str, str]]:
    """The messages for which somebody, honest or not, has shown the right proof."""
    found = set()
    for _, _, message in world.messages():
        if isinstance(message, Collected):
            run = Run(
                call=message.call, n=0, caller=message.caller, callee=message.callee, suite=Suite.AES_256_GCM
            )
            deposits = _deposits(world, message.caller, message.call)
            if any(proof_of(grant.key, run) == message.proof for grant in deposits):
                found.add((message.callee, call_key(message.caller, message.call)))
    return found
