"""What an observer of a simulated world writes down of its stores, for the invariants to judge by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from protocol.encoding import digest
from protocol.names import MASTER_KEY_OCTETS, Run, Suite
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.transcoding import leg_key
from storage.attendance_records import Attendances, AttendanceState
from storage.focus_records import Conference
from storage.kms_records import Agreement, Fork, Group, Subscriber
from storage.records import Key, RecordCodec
from storage.ue_records import Collecting, UeCall
from storage.users_file import Device
from topics.catalogue import Party


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
    fork: bytes = b""  # F; empty: a message's

    def leg_keys(self, transcoder: str) -> dict[Secret, str]:
        """What each end would share with the transcoder, and which identity does."""
        caller, _, call = self.call.rpartition("/")
        run = Run(
            call=bytes.fromhex(call), n=self.n, caller=caller, callee=self.callee, suite=Suite.AES_256_GCM
        )
        return {leg_key(self.key, run, self.fork, transcoder, each): each for each in (caller, self.callee)}


@dataclass(frozen=True, slots=True)
class EpochMember:
    """One who is in, by the token with which it has joined."""

    identity: str
    key_id: str
    token_hash: bytes


@dataclass(frozen=True, slots=True)
class Epoch:
    """K_e, as a KMS has stored it, and for whom it has made it."""

    group: bytes
    focus: str
    epoch: int
    key: Secret
    members: tuple[EpochMember, ...]
    mixes: bool
    at: int
    not_after: int

    @property
    def roster(self) -> set[str]:
        """Those who have the key."""
        return {each.identity for each in self.members} | ({self.focus} if self.mixes else set())


@dataclass(slots=True)
class Observer:
    """Reads every record as it is written, with its owner's key."""

    codec: RecordCodec
    devices: Sequence[Device]
    grants: list[Granted] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    drawn: set[bytes] = field(default_factory=set)
    """What a KMS has drawn that is as long as a key."""
    keys: dict[str, Secret] = field(default_factory=dict)
    """K_x of each key id that the KMS knows."""
    hosts_of_keys: dict[str, str] = field(default_factory=dict)
    """For each key id the UE host of the device whose it is."""
    settled: dict[tuple[str, int], bytes] = field(default_factory=dict)
    """For each call and run F of the device that the KMS has settled it for."""
    held: dict[Secret, set[str]] = field(default_factory=dict)
    """For each K the UE hosts in whose records it was."""
    epochs_held: dict[Secret, set[str]] = field(default_factory=dict)
    """For each K_e the UE hosts and processes of a focus in whose records it was."""
    tokens: set[tuple[bytes, str, bytes]] = field(default_factory=set)
    """G, ID-i and H(token_g) of each join that a handset has asked for."""
    attended: dict[tuple[bytes, bytes], tuple[str, bytes, bool]] = field(default_factory=dict)
    """For each G and C of a join ID-i, H(token_g), and whether the handset has left or wants to."""
    backwards: list[str] = field(default_factory=list)
    """Notices that a handset has taken after a later one."""
    mailbox_octets: list[bytes] = field(default_factory=list)
    """All that a mailbox has stored."""
    transcoder_octets: list[bytes] = field(default_factory=list)
    """All that a transcoder has stored."""
    _serials: dict[tuple[str, str, bytes], int] = field(default_factory=dict)

    def drawing(self, random: Random) -> Random:
        """The same chance, noted."""

        def draw(octets: int) -> bytes:
            drawn = random(octets)
            if octets == MASTER_KEY_OCTETS:
                self.drawn.add(drawn)
            return drawn

        return draw

    def put(self, party: Party, process: str, name: str, value: bytes) -> None:
        """A record that a process has written."""
        match party:
            case Party.KMS:
                self._kms_put(name, value)
            case Party.UE:
                self._ue_put(process, name, value)
            case Party.VOICEMAIL:
                self.mailbox_octets.append(value)
            case Party.TRANSCODER:
                self.transcoder_octets.append(value)
            case Party.CONFERENCE if ":conference:" in name:
                key = self.codec.decode(Key(name, Conference), value).key
                if key is not None:
                    self.epochs_held.setdefault(key, set()).add(process)
            case _:
                pass

    def _kms_put(self, name: str, value: bytes) -> None:
        """What the KMS now holds: K of each device and message, K_e of each epoch, K_x of each key id."""
        if ":agreement:" in name:
            self._agreement(name.partition(":agreement:")[2], self.codec.decode(Key(name, Agreement), value))
        elif ":subscriber:" in name:
            subscriber = self.codec.decode(Key(name, Subscriber), value)
            self.keys[subscriber.key_id] = subscriber.key
            host = next((device.host for device in self.devices if device.impi == subscriber.impi), "")
            self.hosts_of_keys[subscriber.key_id] = host
        elif ":group:" in name:
            self._group(name.partition(":group:")[2], self.codec.decode(Key(name, Group), value))

    def _agreement(self, call: str, agreement: Agreement) -> None:
        for run in agreement.runs:
            if run.settled is not None:
                self.settled[call, run.n] = run.settled
            deposits = (run.deposit,) if run.deposit is not None else ()
            for made in (*run.forks, *deposits):
                if made.key is None:
                    continue
                granted = Granted(
                    call=call,
                    n=run.n,
                    callee=run.callee,
                    caller_key=run.caller_key,
                    callee_key=made.callee_key if isinstance(made, Fork) else None,
                    key=made.key,
                    at=made.granted,
                    not_after=made.not_after,
                    answer_hash=None if isinstance(made, Fork) else made.answer_hash,
                    fork=made.name if isinstance(made, Fork) else b"",
                )
                if granted not in self.grants:
                    self.grants.append(granted)

    def _group(self, name: str, group: Group) -> None:
        if group.key is None:
            return
        focus, _, group_id = name.partition(" ")
        epoch = Epoch(
            group=bytes.fromhex(group_id),
            focus=focus,
            epoch=group.epoch,
            key=group.key,
            members=tuple(EpochMember(each.identity, each.key_id, each.token_hash) for each in group.members),
            mixes=group.mixes,
            at=group.granted,
            not_after=group.not_after,
        )
        if epoch not in self.epochs:
            self.epochs.append(epoch)

    def _ue_put(self, host: str, name: str, value: bytes) -> None:
        """Note which K and K_e a UE host now holds, and what it has asked for."""
        if ":call:" in name:
            call = self.codec.decode(Key(name, UeCall), value)
            self._holds(host, call.key)
            about = (host, call.session, call.nonce)  # a handset that restarts may be asked the same anew
            if call.notice_serial < self._serials.get(about, 0):
                self.backwards.append(f"{host} has taken an old notice of {call.session} run {call.run.n}")
            self._serials[about] = call.notice_serial
        elif ":collecting:" in name:
            self._holds(host, self.codec.decode(Key(name, Collecting), value).key)
        elif ":attendances:" in name:
            for each in self.codec.decode(Key(name, Attendances), value).known:
                identity, token_hash = each.run.caller, digest(each.token)
                self.tokens.add((each.group, identity, token_hash))
                over = each.state in {AttendanceState.LEAVING, AttendanceState.OUT}
                self.attended[each.group, each.run.call] = (identity, token_hash, over)
                if each.key is not None:
                    self.epochs_held.setdefault(each.key, set()).add(host)

    def _holds(self, host: str, key: Secret | None) -> None:
        if key is not None:
            self.held.setdefault(key, set()).add(host)
