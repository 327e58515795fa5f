"""The rights follow from the catalogue: what a principal needs, and nothing besides."""

from __future__ import annotations

from topics.access import Operation, Resource, Right, principals, rights
from topics.catalogue import AUDIT, KMS, ORDERS, STATUS, catalogue, ue_inbox, ue_sounds

HOSTS = ["alice", "bob"]


def topics_of(principal: str, operation: Operation) -> set[str]:
    return {
        right.name
        for right in rights(HOSTS)
        if (right.principal, right.resource, right.operation) == (principal, Resource.TOPIC, operation)
    }


def test_a_ue_host_reads_what_is_its_own() -> None:
    assert topics_of("ue-alice", Operation.READ) == {ue_inbox("alice").name, ue_sounds("alice").name}
    written = topics_of("ue-alice", Operation.WRITE)
    assert KMS.name in written
    assert not {AUDIT.name, ORDERS.name, STATUS.name, ue_inbox("alice").name, ue_inbox("bob").name} & written
    assert ue_sounds("bob").name not in written


def test_orders_come_from_an_operator_and_go_to_the_kms() -> None:
    writers = {r.principal for r in rights(HOSTS) if (r.name, r.operation) == (ORDERS.name, Operation.WRITE)}
    assert writers == {"operator"}
    assert ORDERS.name in topics_of("kms", Operation.READ)


def test_nobody_but_who_made_it_writes_the_audit() -> None:
    writers = {r.principal for r in rights(HOSTS) if (r.name, r.operation) == (AUDIT.name, Operation.WRITE)}
    assert writers == {"kms", "bsf"}
    assert topics_of("auditor", Operation.WRITE) == set()


def test_each_reads_by_its_own_group_only() -> None:
    groups = {(r.principal, r.name) for r in rights(HOSTS) if r.resource is Resource.GROUP}
    assert groups == {
        ("kms", "kms"),
        ("kms", "custodian"),
        ("bsf", "bsf"),
        ("cscf", "cscf"),
        ("voicemail", "voicemail"),
        ("transcoder", "transcoder"),
        ("conference", "conference"),
        ("ue-alice", "ue.alice"),
        ("ue-bob", "ue.bob"),
        ("operator", "*"),
    }
    assert Right("operator", Resource.GROUP, "*", Operation.DESCRIBE) in rights(HOSTS)


def test_rights_are_for_topics_that_there_are_and_for_who_logs_in() -> None:
    names = {topic.name for topic in catalogue(HOSTS)}
    assert {right.name for right in rights(HOSTS) if right.resource is Resource.TOPIC} == names
    assert {right.principal for right in rights(HOSTS)} == set(principals(HOSTS))
