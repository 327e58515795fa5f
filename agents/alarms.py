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


class NoAnswer(msgspec.Struct, frozen=True, tag="no-answer", forbid_unknown_fields=True):
    """CSCF: the callee has had its time."""

    caller: Identity
    callee: Identity
    call: CallId
    n: int


Alarm = HandsetAlarm | CallAlarm | NoAnswer

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Alarm)


def encode_alarm(alarm: Alarm) -> bytes:
    """The octets that a store keeps."""
    return _encoder.encode(alarm)


def decode_alarm(octets: bytes) -> Alarm:
    """Raises msgspec.MsgspecError when a store does not hold what this program wrote."""
    alarm: Alarm = _decoder.decode(octets)
    return alarm
