"""Messages to oneself at a later time. They are stored with the records and never cross the bus, so that
nobody can send one."""

from __future__ import annotations

import msgspec

from protocol.names import CallId, GroupId, Identity, Impi


class HandsetAlarm(msgspec.Struct, frozen=True, tag="handset", forbid_unknown_fields=True):
    """UE: see to this device's key and registration; the first one comes when it is switched on."""

    device: Impi


class CallAlarm(msgspec.Struct, frozen=True, tag="call", forbid_unknown_fields=True):
    """UE: see to this call: repeat what was not answered, end what has lasted too long."""

    session: str


class CollectAlarm(msgspec.Struct, frozen=True, tag="collect", forbid_unknown_fields=True):
    """UE: see to the collecting of this message."""

    session: str


class NoAnswer(msgspec.Struct, frozen=True, tag="no-answer", forbid_unknown_fields=True):
    """CSCF: the callee has had its time."""

    caller: Identity
    callee: Identity
    call: CallId
    n: int


class Cancelling(msgspec.Struct, frozen=True, tag="cancelling", forbid_unknown_fields=True):
    """CSCF: devices that are to stop ringing have not said that they did."""

    caller: Identity
    callee: Identity
    call: CallId
    n: int


class KeysEnd(msgspec.Struct, frozen=True, tag="keys-end", forbid_unknown_fields=True):
    """KMS: a key of this call has reached its end, and is destroyed."""

    caller: Identity
    call: CallId


class MessageAlarm(msgspec.Struct, frozen=True, tag="message", forbid_unknown_fields=True):
    """Mailbox: see to this message: repeat, close what has gone silent, delete at not_after."""

    caller: Identity
    callee: Identity
    call: CallId


class ForgetParts(msgspec.Struct, frozen=True, tag="forget-parts", forbid_unknown_fields=True):
    """Mailbox: the message is gone; so are its packets, from this part to before that one."""

    caller: Identity
    callee: Identity
    call: CallId
    first: int
    end: int


class AttendanceAlarm(msgspec.Struct, frozen=True, tag="attendance", forbid_unknown_fields=True):
    """UE: see to being in this conference."""

    session: str


class LegsAlarm(msgspec.Struct, frozen=True, tag="legs", forbid_unknown_fields=True):
    """Transcoder: see to this call: repeat, take it over from an instance that is gone, end it."""

    caller: Identity
    call: CallId


class ConferenceAlarm(msgspec.Struct, frozen=True, tag="conference", forbid_unknown_fields=True):
    """Focus: see to this conference: ask for what has changed, repeat, refresh, take it over."""

    group: GroupId


class BatchAlarm(msgspec.Struct, frozen=True, tag="batch", forbid_unknown_fields=True):
    """Focus, by this process to itself: changes have been gathered for long enough."""

    group: GroupId


class StillMine(msgspec.Struct, frozen=True, tag="still-mine", forbid_unknown_fields=True):
    """Focus, by this process to itself: does it still mix this conference?"""

    group: GroupId


class StillBetween(msgspec.Struct, frozen=True, tag="still-between", forbid_unknown_fields=True):
    """Transcoder, by this process to itself: does it still carry this call, under this bridge?"""

    caller: Identity
    call: CallId
    bridge: str


class RekeyAlarm(msgspec.Struct, frozen=True, tag="rekey", forbid_unknown_fields=True):
    """Focus: this member has not said that it uses the epoch."""

    group: GroupId
    member: Identity


class EpochEnds(msgspec.Struct, frozen=True, tag="epoch-ends", forbid_unknown_fields=True):
    """KMS: the last epoch's key of this conference has reached its end, and is destroyed."""

    focus: Identity
    group: GroupId


Alarm = (
    HandsetAlarm
    | CallAlarm
    | CollectAlarm
    | AttendanceAlarm
    | NoAnswer
    | Cancelling
    | KeysEnd
    | EpochEnds
    | MessageAlarm
    | ForgetParts
    | LegsAlarm
    | ConferenceAlarm
    | BatchAlarm
    | StillMine
    | StillBetween
    | RekeyAlarm
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Alarm)


def encode_alarm(alarm: Alarm) -> bytes:
    """The octets that a store keeps."""
    return _encoder.encode(alarm)


def decode_alarm(octets: bytes) -> Alarm:
    """Raises msgspec.MsgspecError when a store does not hold what this program wrote."""
    alarm: Alarm = _decoder.decode(octets)
    return alarm
