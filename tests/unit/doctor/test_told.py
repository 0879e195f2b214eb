"""Which findings are told: causes, without their consequences."""

from birthmark.doctor.findings import DoctorFinding, FindingSeverity, Topic, remove_consequences


def a_fault(topic: Topic, about: str = "") -> DoctorFinding:
    return DoctorFinding("doctor.x", topic, FindingSeverity.FAULT, "seen", about=about)


def test_a_missing_library_explains_that_there_is_no_token() -> None:
    library = a_fault(Topic.LIBRARY)
    assert remove_consequences([library, a_fault(Topic.TOKEN), a_fault(Topic.PIN)]) == [library]


def test_what_a_warning_is_about_explains_nothing() -> None:
    warning = DoctorFinding("doctor.x", Topic.LIBRARY, FindingSeverity.WARNING, "seen")
    assert remove_consequences([warning, a_fault(Topic.TOKEN)]) == [warning, a_fault(Topic.TOKEN)]


def test_a_fault_of_one_host_explains_nothing_of_another() -> None:
    every = [a_fault(Topic.PROXY, "one"), a_fault(Topic.NETWORK, "two")]
    assert remove_consequences([*every, a_fault(Topic.NETWORK, "one")]) == every


def test_what_is_right_is_told_beside_a_fault() -> None:
    right = DoctorFinding("doctor.x", Topic.TOKEN, FindingSeverity.OK, "seen")
    assert remove_consequences([a_fault(Topic.LIBRARY), right])[1] == right


def test_the_same_is_told_once() -> None:
    assert remove_consequences([a_fault(Topic.TOKEN)] * 2) == [a_fault(Topic.TOKEN)]
