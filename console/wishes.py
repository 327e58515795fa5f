"""What users and operators want in the embedded deployment: messages, as the commands send them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protocol.sealing import Random
from protocol.sharding import call_key, shard_of
from storage.users_file import Device
from topics.bus import Outbound
from topics.catalogue import CONFERENCE, ORDERS, Topic, ue_inbox
from topics.codec import encode
from topics.messages import (
    CreateConference,
    DeleteMessage,
    Dial,
    EndConference,
    HangUp,
    JoinConference,
    LeaveConference,
    ListMessages,
    PlayMessage,
    RemoveMember,
    Revoke,
    RevokeRelease,
    ShowConference,
    Wire,
)

OfUser = Dial | HangUp | ListMessages | PlayMessage | DeleteMessage | JoinConference | LeaveConference


@dataclass(frozen=True, slots=True)
class Wishes:
    """Each method returns at once: what comes of a wish, reports and audit records tell."""

    devices: Mapping[str, Device]
    """By the name of the UE host."""
    focus: str
    """ID-C."""
    random: Random
    append: Callable[[Outbound], None]

    def tell(self, host: str, message: OfUser) -> None:
        """What a user says to the handset on this host."""
        self.append(Outbound(ue_inbox(host).name, 0, message.to.encode(), encode(message)))

    def dial(self, caller: str, callee: str) -> None:
        """A user dials."""
        device, other = self.devices[caller], self.devices[callee]
        self.tell(caller, Dial(request=self.random(16), to=device.impi, callee=other.identity))

    def join(self, name: str, group: bytes) -> None:
        """A user wants to be in a conference."""
        to, request = self.devices[name].impi, self.random(16)
        self.tell(name, JoinConference(request=request, to=to, group=group, focus=self.focus))

    def leave(self, name: str, group: bytes) -> None:
        """A user wants to be out of it."""
        to, request = self.devices[name].impi, self.random(16)
        self.tell(name, LeaveConference(request=request, to=to, group=group, focus=self.focus))

    def create_conference(self) -> bytes:
        """An operator begins a conference. Returns G."""
        group = self.random(16)
        request = self.random(16)
        self._say(CONFERENCE, group.hex(), CreateConference(group=group, focus=self.focus, request=request))
        return group

    def remove(self, name: str, group: bytes) -> None:
        """An operator puts a user out of a conference."""
        member, request = self.devices[name].identity, self.random(16)
        wish = RemoveMember(group=group, focus=self.focus, member=member, request=request)
        self._say(CONFERENCE, group.hex(), wish)

    def end_conference(self, group: bytes) -> None:
        """An operator ends a conference."""
        request = self.random(16)
        self._say(CONFERENCE, group.hex(), EndConference(group=group, focus=self.focus, request=request))

    def show_conference(self, group: bytes) -> bytes:
        """An operator asks how a conference stands. Returns the name of the question."""
        request = self.random(16)
        self._say(CONFERENCE, group.hex(), ShowConference(group=group, focus=self.focus, request=request))
        return request

    def revoke(self, key_id: str) -> None:
        """An operator revokes a key id."""
        self._say(ORDERS, key_id, Revoke(key_id=key_id, order=self.random(16)))

    def revoke_release(self, caller: str, call: bytes) -> None:
        """An operator takes the leg keys of a call from its transcoder. caller: ID-A."""
        order = RevokeRelease(caller=caller, call=call, order=self.random(16))
        self._say(ORDERS, call_key(caller, call), order)

    def _say(self, topic: Topic, key: str, message: Wire) -> None:
        self.append(Outbound(topic.name, shard_of(key) % topic.partitions, key.encode(), encode(message)))
