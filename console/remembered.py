"""What the network's records say in the embedded deployment, opened as their roles open them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from chaos.eavesdropping import holdings
from protocol.secret import Secret
from storage.kms_records import Agreement, Subscriber
from storage.memory import MemoryStore
from storage.records import Key, Record, RecordCodec

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Remembered:
    """All network roles share the store, each under its own prefix."""

    store: MemoryStore
    codec: RecordCodec

    def secrets(self, role: str) -> list[Secret]:
        """All secrets in a role's records."""
        return holdings(self.store, self.codec, role)

    def granted_keys(self) -> dict[str, bool]:
        """By the device that K was granted to as a callee: whether the KMS still holds that K."""
        return {
            fork.impi: fork.key is not None
            for agreement in self.of_kms("agreement", Agreement)
            for run in agreement.runs
            for fork in run.forks
        }

    def long_term_keys(self) -> set[Secret]:
        """All K_x that the KMS holds."""
        return {record.key for record in self.of_kms("subscriber", Subscriber)}

    def stored_parts(self, call: bytes) -> int:
        """How many records with packets of this call the mailbox has."""
        return sum(":part:" in name and call.hex() in name for name, _ in self.store.items())

    def of_kms(self, label: str, kind: type[R]) -> list[R]:
        """The KMS's records of a kind."""
        return [
            self.codec.decode(Key(name, kind), value)
            for name, value in self.store.items()
            if name.startswith("kms:") and f":{label}:" in name
        ]
