"""Messages to oneself at a later time. They are stored with the records and never cross the bus, so that
nobody can send one."""

from __future__ import annotations

import msgspec

from protocol.names import CallId, Identity, Impi


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


Alarm = HandsetAlarm | CallAlarm | CollectAlarm | NoAnswer | Cancelling | KeysEnd | MessageAlarm | ForgetParts

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Alarm)


def encode_alarm(alarm: Alarm) -> bytes:
    """The octets that a store keeps."""
    return _encoder.encode(alarm)


def decode_alarm(octets: bytes) -> Alarm:
    """Raises msgspec.MsgspecError when a store does not hold what this program wrote."""
    alarm: Alarm = _decoder.decode(octets)
    return alarm
