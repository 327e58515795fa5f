"""The form that all messages have, and the names on the wire, which are apart from the names in the code.

A message that travels from end to end passes the CSCF: towards it `sender` says where answers go, from it
`to` says for which device of the host it is.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from protocol.limits import SEAL_OCTETS_MAX
from protocol.names import CallId, Host, Identity, Impi, Run, RunNumber, Suite

WIRE_NAMES: Final = {
    "version": "v",
    "sender": "from",
    "to": "to",
    "call": "c",
    "run": "n",
    "caller": "a",
    "callee": "b",
    "caller_key": "kid_a",
    "callee_key": "kid_b",
    "mailbox": "m",
    "mailbox_key": "kid_m",
    "transcoder": "t",
    "transcoder_key": "kid_t",
    "group": "g",
    "epoch": "e",
    "focus": "conf",
    "focus_key": "kid_conf",
    "member": "i",
    "member_key": "kid_i",
    "fork": "f",
    "nonce_b": "nb",
    "media": "at",
    "not_after": "until",
}

Sealed = Annotated[bytes, Meta(min_length=28, max_length=SEAL_OCTETS_MAX)]
DescriptionOctets = Annotated[bytes, Meta(min_length=1, max_length=512)]
Text = Annotated[str, Meta(max_length=255)]
CodecName = Annotated[str, Meta(min_length=1, max_length=32)]
HexDigest = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]


class Contact(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a device is reached: the UE host whose inbox it reads, and its private identity there."""

    host: Host
    device: Impi


class Wire(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    rename=lambda name: WIRE_NAMES.get(name, name),
):
    """The form that all messages have: a map with `type` and `v`."""

    version: Literal[1] = 1


class OfRun(Wire, frozen=True, kw_only=True):
    """C, n, ID-A, ID-B in clear, which every message of a call carries."""

    call: CallId
    run: RunNumber
    caller: Identity
    callee: Identity


def run_of(message: OfRun, suite: Suite) -> Run:
    """The run that a message of a call belongs to, as seals and records name it."""
    return Run(call=message.call, n=message.run, caller=message.caller, callee=message.callee, suite=suite)


def clear(run: Run) -> dict[str, Any]:
    """C, n, ID-A, ID-B as the fields that every message of the run has."""
    return {"call": run.call, "run": run.n, "caller": run.caller, "callee": run.callee}


def named(message: OfRun) -> dict[str, Any]:
    """The same fields, for an answer to a message of the run."""
    return {"call": message.call, "run": message.run, "caller": message.caller, "callee": message.callee}
