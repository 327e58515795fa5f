"""What an observer of a simulated world writes down of its stores, for the invariants to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protocol.secret import Secret
from storage.kms_records import Agreement, Fork, Subscriber
from storage.records import Key, RecordCodec
from storage.ue_records import Collecting, UeCall
from storage.users_file import Device


@dataclass(frozen=True, slots=True)
class Granted:
    """K, as a KMS has stored it."""

    call: str  # ID-A and C, as protocol/sharding.py writes them
    n: int
    callee: str
    caller_key: str
    callee_key: str | None  # None: for a message in a mailbox, which any device of the callee may fetch
    key: Secret
    at: int
    not_after: int
    answer_hash: bytes | None = None  # of the mailbox's answer


class Observer:
    """Reads every record as it is written, with its owner's key."""

    def __init__(self, codec: RecordCodec, devices: Sequence[Device]) -> None:
        self.grants: list[Granted] = []
        self.keys: dict[str, Secret] = {}
        """K_x of each key id that the KMS knows."""
        self.hosts_of_keys: dict[str, str] = {}
        """For each key id the UE host of the device whose it is."""
        self.held: dict[Secret, set[str]] = {}
        """For each K the UE hosts in whose records it was."""
        self.mailbox_octets: list[bytes] = []
        """All that a mailbox has stored."""
        self._codec = codec
        self._devices = devices

    def kms_put(self, name: str, value: bytes) -> None:
        """Note what the KMS now holds: K for each answering device and each message, K_x for each key id."""
        if ":agreement:" in name:
            agreement = self._codec.decode(Key(name, Agreement), value)
            for run in agreement.runs:
                deposits = (run.deposit,) if run.deposit is not None else ()
                for made in (*run.forks, *deposits):
                    if made.key is not None:
                        granted = Granted(
                            call=name.partition(":agreement:")[2],
                            n=run.n,
                            callee=run.callee,
                            caller_key=run.caller_key,
                            callee_key=made.callee_key if isinstance(made, Fork) else None,
                            key=made.key,
                            at=made.granted,
                            not_after=made.not_after,
                            answer_hash=None if isinstance(made, Fork) else made.answer_hash,
                        )
                        if granted not in self.grants:
                            self.grants.append(granted)
        elif ":subscriber:" in name:
            subscriber = self._codec.decode(Key(name, Subscriber), value)
            self.keys[subscriber.key_id] = subscriber.key
            host = next((device.host for device in self._devices if device.impi == subscriber.impi), "")
            self.hosts_of_keys[subscriber.key_id] = host

    def ue_put(self, host: str, name: str, value: bytes) -> None:
        """Note which K a UE host now holds."""
        key: Secret | None = None
        if ":call:" in name:
            key = self._codec.decode(Key(name, UeCall), value).key
        elif ":collecting:" in name:
            key = self._codec.decode(Key(name, Collecting), value).key
        if key is not None:
            self.held.setdefault(key, set()).add(host)
