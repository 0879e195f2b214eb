"""The registry, certificates, policies and CAs as the real boto3 uses them."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from birthmark.pki.ca_possession_proof import prove_possession
from birthmark.pki.issuance import new_serial
from support.aws.device import ARN, Enrolled, document, statement
from support.fakes import SeededEntropy
from support.pki.pki_builders import Holder, a_ca, a_csr, a_device, a_key

POLICY = document(statement("iot:*"))


def now() -> datetime:
    return datetime.now(UTC)


def code(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


def refused(expected: str, call: Any, **arguments: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    assert code(caught) == expected
    return dict(caught.value.response)


def test_things_are_created_changed_listed_and_deleted(iot: Any) -> None:
    first = iot.create_thing(thingName="reg-1", attributePayload={"attributes": {"zone": "b7"}})
    assert iot.create_thing(thingName="reg-1", attributePayload={"attributes": {"zone": "b7"}}) | {
        "ResponseMetadata": 0
    } == first | {"ResponseMetadata": 0}
    refused("ResourceAlreadyExistsException", iot.create_thing, thingName="reg-1")
    iot.update_thing(thingName="reg-1", attributePayload={"attributes": {"a": "1"}, "merge": True})
    refused("VersionConflictException", iot.update_thing, thingName="reg-1", expectedVersion=1)
    described = iot.describe_thing(thingName="reg-1")
    assert described["attributes"] == {"zone": "b7", "a": "1"}
    assert described["version"] == 2
    assert described["defaultClientId"] == "reg-1"
    found = iot.list_things(attributeName="zone", attributeValue="b", usePrefixAttributeValue=True)["things"]
    assert [thing["thingName"] for thing in found] == ["reg-1"]
    assert iot.list_things(attributeName="zone", attributeValue="b")["things"] == []
    iot.delete_thing(thingName="reg-1")
    iot.delete_thing(thingName="reg-1")
    refused("ResourceNotFoundException", iot.describe_thing, thingName="reg-1")


def test_lists_go_page_by_page(iot: Any) -> None:
    names = [f"page-{number:02}" for number in range(7)]
    for name in names:
        iot.create_thing(thingName=name)
        iot.create_policy(policyName=name, policyDocument=POLICY)
    pages = list(iot.get_paginator("list_things").paginate(maxResults=3))
    listed = [thing["thingName"] for page in pages for thing in page["things"]]
    assert [name for name in listed if name.startswith("page-")] == names
    assert len(pages) >= 3
    assert "nextToken" not in pages[-1]
    policies = [
        policy["policyName"]
        for page in iot.get_paginator("list_policies").paginate(PaginationConfig={"PageSize": 2}, ascendingOrder=False)
        for policy in page["policies"]
    ]
    assert [name for name in policies if name.startswith("page-")] == names[::-1]
    refused("InvalidRequestException", iot.list_policies, marker="bm90IG91cnM", pageSize=1)


def test_certificates_page_by_age(iot: Any) -> None:
    made = []
    for number in range(5):
        pem = a_device(a_ca(now=now()), f"aged-{number}", now=now()).certificate.pem()
        made.append(iot.register_certificate_without_ca(certificatePem=pem)["certificateId"])
    for ascending, expected in ((True, made), (False, made[::-1])):
        pages = iot.get_paginator("list_certificates").paginate(
            ascendingOrder=ascending, PaginationConfig={"PageSize": 2}
        )
        listed = [each["certificateId"] for page in pages for each in page["certificates"]]
        assert [each for each in listed if each in made] == expected


def test_thing_types(iot: Any) -> None:
    properties = {"thingTypeDescription": "A pump", "searchableAttributes": ["zone"]}
    iot.create_thing_type(thingTypeName="pump", thingTypeProperties=properties)
    iot.create_thing(thingName="typed", thingTypeName="pump")
    refused("ResourceNotFoundException", iot.create_thing, thingName="other", thingTypeName="none")
    assert iot.describe_thing_type(thingTypeName="pump")["thingTypeProperties"] == properties
    assert iot.list_things(thingTypeName="pump")["things"][0]["thingName"] == "typed"
    iot.deprecate_thing_type(thingTypeName="pump")
    refused("InvalidRequestException", iot.create_thing, thingName="late", thingTypeName="pump")
    refused("InvalidRequestException", iot.delete_thing_type, thingTypeName="pump")
    assert iot.list_thing_types()["thingTypes"][0]["thingTypeMetadata"]["deprecated"] is True


def test_policies_have_up_to_five_versions(iot: Any) -> None:
    iot.create_policy(policyName="versions", policyDocument=POLICY)
    refused("ResourceAlreadyExistsException", iot.create_policy, policyName="versions", policyDocument=POLICY)
    other = document(statement("iot:Connect"))
    for number in range(2, 6):
        made = iot.create_policy_version(policyName="versions", policyDocument=other, setAsDefault=number == 5)
        assert made["policyVersionId"] == str(number)
    refused("VersionsLimitExceededException", iot.create_policy_version, policyName="versions", policyDocument=other)
    assert iot.get_policy(policyName="versions")["policyDocument"] == other
    assert iot.get_policy_version(policyName="versions", policyVersionId="1")["policyDocument"] == POLICY
    refused("DeleteConflictException", iot.delete_policy_version, policyName="versions", policyVersionId="5")
    refused("DeleteConflictException", iot.delete_policy, policyName="versions")
    iot.set_default_policy_version(policyName="versions", policyVersionId="1")
    for version in iot.list_policy_versions(policyName="versions")["policyVersions"]:
        if not version["isDefaultVersion"]:
            iot.delete_policy_version(policyName="versions", policyVersionId=version["versionId"])
    iot.delete_policy(policyName="versions")
    refused("ResourceNotFoundException", iot.get_policy, policyName="versions")


def test_what_is_attached_is_listed_both_ways(iot: Any, enroll: Any) -> None:
    thing: Enrolled = enroll("attached")
    iot.attach_policy(policyName="attached", target=thing.arn)  # again: harmless
    assert iot.list_targets_for_policy(policyName="attached")["targets"] == [thing.arn]
    assert iot.list_policy_principals(policyName="attached")["principals"] == [thing.arn]
    assert iot.list_principal_policies(principal=thing.arn)["policies"][0]["policyName"] == "attached"
    assert iot.list_principal_things(principal=thing.arn)["things"] == ["attached"]
    kind = {"thingPrincipalType": "NON_EXCLUSIVE_THING"}
    assert iot.list_principal_things_v2(principal=thing.arn)["principalThingObjects"] == [
        {"thingName": "attached", **kind}
    ]
    assert iot.list_thing_principals_v2(thingName="attached")["thingPrincipalObjects"] == [
        {"principal": thing.arn, **kind}
    ]
    assert iot.get_effective_policies(principal=thing.arn)["effectivePolicies"][0]["policyDocument"] == POLICY
    refused("DeleteConflictException", iot.delete_policy, policyName="attached")
    refused("InvalidRequestException", iot.delete_thing, thingName="attached")
    iot.detach_principal_policy(policyName="attached", principal=thing.arn)
    iot.attach_principal_policy(policyName="attached", principal=thing.arn)
    iot.detach_policy(policyName="attached", target=thing.arn)
    assert iot.list_attached_policies(target=thing.arn)["policies"] == []
    iot.detach_thing_principal(thingName="attached", principal=thing.arn)
    assert iot.list_thing_principals(thingName="attached")["principals"] == []


def test_an_exclusive_certificate_belongs_to_one_thing(iot: Any, enroll: Any) -> None:
    thing: Enrolled = enroll("exclusive")
    iot.create_thing(thingName="second")
    iot.detach_thing_principal(thingName="exclusive", principal=thing.arn)
    kind = {"thingPrincipalType": "EXCLUSIVE_THING"}
    iot.attach_thing_principal(thingName="exclusive", principal=thing.arn, **kind)
    refused("InvalidRequestException", iot.attach_thing_principal, thingName="second", principal=thing.arn)
    owned = document(
        statement("iot:Connect", "*"), statement("iot:Publish", ARN + "topic/${iot:Connection.Thing.ThingName}")
    )
    iot.create_policy_version(policyName="exclusive", policyDocument=owned, setAsDefault=True)
    with thing.device(port=8883, client_id="any-client-id") as device:
        assert "ok" in device("connect")
        assert device("publish", topic="exclusive", payload="x") == {"ok": None}


def test_ten_policies_hang_on_a_certificate(iot: Any, enroll: Any) -> None:
    thing: Enrolled = enroll("ten")
    for number in range(10):
        iot.create_policy(policyName=f"ten-{number}", policyDocument=POLICY)
    for number in range(9):
        iot.attach_policy(policyName=f"ten-{number}", target=thing.arn)
    refused("LimitExceededException", iot.attach_policy, policyName="ten-9", target=thing.arn)


def test_a_certificate_is_described_and_leaves_only_when_nothing_hangs_on_it(iot: Any) -> None:
    made = iot.create_keys_and_certificate(setAsActive=True)
    iot.create_thing(thingName="leaving")
    iot.create_policy(policyName="leaving", policyDocument=document(statement("iot:*")))
    iot.attach_policy(policyName="leaving", target=made["certificateArn"])
    iot.attach_thing_principal(thingName="leaving", principal=made["certificateArn"])
    described = iot.describe_certificate(certificateId=made["certificateId"])["certificateDescription"]
    loaded = x509.load_pem_x509_certificate(described["certificatePem"].encode())
    assert described["validity"]["notAfter"] == loaded.not_valid_after_utc
    assert (described["status"], described["certificateMode"], described["customerVersion"]) == ("ACTIVE", "DEFAULT", 1)
    delete = {"certificateId": made["certificateId"]}
    refused("CertificateStateException", iot.delete_certificate, **delete)
    refused("InvalidRequestException", iot.update_certificate, **delete, newStatus="PENDING_TRANSFER")
    iot.update_certificate(**delete, newStatus="INACTIVE")
    refused("DeleteConflictException", iot.delete_certificate, **delete)
    iot.detach_thing_principal(thingName="leaving", principal=made["certificateArn"])
    refused("DeleteConflictException", iot.delete_certificate, **delete)
    iot.delete_certificate(**delete, forceDelete=True)
    refused("ResourceNotFoundException", iot.describe_certificate, **delete)


def test_a_certificate_registers_once(iot: Any) -> None:
    pem = a_device(a_ca(now=now()), "once", now=now()).certificate.pem()
    first = iot.register_certificate_without_ca(certificatePem=pem)
    told = refused("ResourceAlreadyExistsException", iot.register_certificate_without_ca, certificatePem=pem)
    assert told["resourceArn"] == first["certificateArn"]
    assert told["resourceId"] == first["certificateId"]
    described = iot.describe_certificate(certificateId=first["certificateId"])["certificateDescription"]
    assert (described["status"], described["certificateMode"]) == ("INACTIVE", "SNI_ONLY")
    old = a_device(a_ca(now=now() - timedelta(days=9)), "old", now=now() - timedelta(days=9)).certificate.pem()
    refused("CertificateValidationException", iot.register_certificate_without_ca, certificatePem=old)


def test_the_service_signs_requests_and_makes_keys(iot: Any) -> None:
    csr = x509.load_der_x509_csr(a_csr("my-device"))
    from cryptography.hazmat.primitives.serialization import Encoding

    made = iot.create_certificate_from_csr(
        certificateSigningRequest=csr.public_bytes(Encoding.PEM).decode(), setAsActive=True
    )
    loaded = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    assert loaded.subject.rfc4514_string() == "CN=AWS IoT Certificate"
    assert loaded.public_key() == csr.public_key()
    pair = iot.create_keys_and_certificate()
    key = load_pem_private_key(pair["keyPair"]["PrivateKey"].encode(), None)
    assert pair["keyPair"]["PrivateKey"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert x509.load_pem_x509_certificate(pair["certificatePem"].encode()).public_key() == key.public_key()


def verification(ca: Holder, registration_code: str) -> str:
    made = prove_possession(
        registration_code,
        ca.as_issuer,
        a_key().public_key(),
        serial=new_serial(SeededEntropy(3)),
        now=now(),
        lifetime=timedelta(hours=1),
    )
    return made.pem()


def test_a_ca_is_registered_with_proof_of_its_key_and_its_certificates_follow(iot: Any) -> None:
    ca = a_ca("Own CA", now=now())
    registration_code = iot.get_registration_code()["registrationCode"]
    assert registration_code == iot.get_registration_code()["registrationCode"]
    assert len(registration_code) == 64
    given = {"caCertificate": ca.certificate.pem()}
    refused("CertificateValidationException", iot.register_ca_certificate, **given)
    wrong = verification(ca, "0" * 64)
    refused("RegistrationCodeValidationException", iot.register_ca_certificate, **given, verificationCertificate=wrong)
    unauthenticated = verification(a_ca("Own CA", now=now()), registration_code)
    refused(
        "CertificateValidationException", iot.register_ca_certificate, **given, verificationCertificate=unauthenticated
    )
    made = iot.register_ca_certificate(
        **given, verificationCertificate=verification(ca, registration_code), setAsActive=True
    )
    ca_id = made["certificateId"]
    told = refused(
        "ResourceAlreadyExistsException",
        iot.register_ca_certificate,
        **given,
        verificationCertificate=verification(ca, registration_code),
    )
    assert told["resourceArn"] == made["certificateArn"]

    device = a_device(ca, "by-ca", now=now()).certificate
    registered = iot.register_certificate(certificatePem=device.pem(), caCertificatePem=ca.certificate.pem())
    described = iot.describe_certificate(certificateId=registered["certificateId"])["certificateDescription"]
    assert described["caCertificateId"] == ca_id
    [listed] = iot.list_certificates_by_ca(caCertificateId=ca_id)["certificates"]
    assert listed["certificateId"] == registered["certificateId"]
    strange = a_device(a_ca("Nobody's", now=now()), "x", now=now()).certificate.pem()
    refused("CertificateValidationException", iot.register_certificate, certificatePem=strange)

    refused("CertificateStateException", iot.delete_ca_certificate, certificateId=ca_id)
    iot.update_ca_certificate(certificateId=ca_id, newStatus="INACTIVE", newAutoRegistrationStatus="DISABLE")
    described = iot.describe_ca_certificate(certificateId=ca_id)["certificateDescription"]
    assert (described["status"], described["autoRegistrationStatus"]) == ("INACTIVE", "DISABLE")
    assert described["certificateMode"] == "DEFAULT"
    iot.delete_ca_certificate(certificateId=ca_id)
    refused("ResourceNotFoundException", iot.describe_ca_certificate, certificateId=ca_id)


def test_a_ca_without_proof_is_for_sni_only(iot: Any) -> None:
    ca = a_ca("Chip maker's CA", now=now())
    made = iot.register_ca_certificate(caCertificate=ca.certificate.pem(), certificateMode="SNI_ONLY")
    listed = [each["certificateId"] for each in iot.list_ca_certificates()["certificates"]]
    assert made["certificateId"] in listed
    leaf = a_device(now=now()).certificate.pem()
    refused(
        "CertificateValidationException", iot.register_ca_certificate, caCertificate=leaf, certificateMode="SNI_ONLY"
    )


def test_things_stand_under_groups(iot: Any) -> None:
    made = iot.create_thing_group(thingGroupName="line-3", thingGroupProperties={"thingGroupDescription": "pumps"})
    again = iot.create_thing_group(thingGroupName="line-3", thingGroupProperties={"thingGroupDescription": "pumps"})
    assert again["thingGroupId"] == made["thingGroupId"]
    refused("ResourceAlreadyExistsException", iot.create_thing_group, thingGroupName="line-3")
    refused("ResourceNotFoundException", iot.create_thing_group, thingGroupName="line-4", parentGroupName="none")
    for number in range(3):
        iot.create_thing(thingName=f"grouped-{number}")
        iot.add_thing_to_thing_group(thingGroupName="line-3", thingName=f"grouped-{number}")
    elsewhere = made["thingGroupArn"].replace(iot.meta.region_name, "eu-west-3")  # ARNs of any region are taken
    iot.add_thing_to_thing_group(thingGroupArn=elsewhere, thingArn=ARN + "thing/grouped-0")
    pages = iot.get_paginator("list_things_in_thing_group").paginate(thingGroupName="line-3", maxResults=2)
    assert [page["things"] for page in pages] == [["grouped-0", "grouped-1"], ["grouped-2"]]
    (group,) = iot.list_thing_groups_for_thing(thingName="grouped-0")["thingGroups"]
    assert group == {"groupName": "line-3", "groupArn": made["thingGroupArn"]}
    assert iot.update_thing_group(thingGroupName="line-3", thingGroupProperties={}, expectedVersion=1)["version"] == 2
    refused(
        "VersionConflictException",
        iot.update_thing_group,
        thingGroupName="line-3",
        thingGroupProperties={},
        expectedVersion=1,
    )
    described = iot.describe_thing_group(thingGroupName="line-3")
    assert (described["version"], described["thingGroupProperties"]["thingGroupDescription"]) == (2, "pumps")
    iot.remove_thing_from_thing_group(thingGroupName="line-3", thingName="grouped-1")
    iot.delete_thing(thingName="grouped-2")
    assert iot.list_things_in_thing_group(thingGroupName="line-3")["things"] == ["grouped-0"]
    assert [one["groupName"] for one in iot.list_thing_groups(namePrefixFilter="line")["thingGroups"]] == ["line-3"]
    assert iot.list_thing_groups(namePrefixFilter="row")["thingGroups"] == []
    iot.delete_thing_group(thingGroupName="line-3")
    iot.delete_thing_group(thingGroupName="line-3")
    assert iot.list_thing_groups_for_thing(thingName="grouped-0")["thingGroups"] == []
    refused("ResourceNotFoundException", iot.describe_thing_group, thingGroupName="line-3")
    refused("ResourceNotFoundException", iot.add_thing_to_thing_group, thingGroupName="line-3", thingName="grouped-0")
    refused("InvalidRequestException", iot.add_thing_to_thing_group, thingGroupName="line-3", thingArn="arn:x")


def test_a_groups_attributes_are_a_things_replaced_or_merged(iot: Any) -> None:
    def given(attributes: dict[str, str], **more: Any) -> dict[str, Any]:
        return {"thingGroupProperties": {"attributePayload": {"attributes": attributes, **more}}}

    def attributes() -> Any:
        described = iot.describe_thing_group(thingGroupName="line-9")["thingGroupProperties"]
        assert described["thingGroupDescription"] == "pumps"
        return described["attributePayload"]

    iot.create_thing_group(thingGroupName="line-9", thingGroupProperties={"thingGroupDescription": "pumps"})
    iot.update_thing_group(thingGroupName="line-9", **given({"site": "Osaka"}))
    iot.update_thing_group(thingGroupName="line-9", **given({"row": "3"}, merge=True))
    assert attributes() == {"attributes": {"site": "Osaka", "row": "3"}}
    iot.update_thing_group(thingGroupName="line-9", **given({"row": ""}, merge=True))
    assert attributes() == {"attributes": {"site": "Osaka"}}
    iot.update_thing_group(thingGroupName="line-9", **given({"row": "4"}))
    assert attributes() == {"attributes": {"row": "4"}}
    for wrong in ({"a": "v" * 801}, {"a b": "v"}, {f"a{n}": "v" for n in range(51)}):
        refused("InvalidRequestException", iot.create_thing_group, thingGroupName="line-8", **given(wrong))
        refused("InvalidRequestException", iot.update_thing_group, thingGroupName="line-9", **given(wrong))
    for text in ("x" * 2029, "a\nb"):
        described = {"thingGroupDescription": text}
        refused(
            "InvalidRequestException",
            iot.create_thing_group,
            thingGroupName="line-8",
            thingGroupProperties=described,
        )


def test_what_may_have_tags_has_none(iot: Any) -> None:
    ca = a_ca("Untagged", now=now()).certificate.pem()
    made = [
        iot.create_thing_group(thingGroupName="untagged")["thingGroupArn"],
        iot.create_thing_type(thingTypeName="untagged")["thingTypeArn"],
        iot.create_policy(policyName="un+tag=g,e.d@-", policyDocument=POLICY)["policyArn"],
        iot.register_ca_certificate(caCertificate=ca, certificateMode="SNI_ONLY")["certificateArn"],
    ]
    for arn in (*made, made[0].replace("us-east-1", "eu-west-1")):
        [page] = iot.get_paginator("list_tags_for_resource").paginate(resourceArn=arn)
        assert page["tags"] == []
        refused("InvalidRequestException", iot.list_tags_for_resource, resourceArn=arn, nextToken="bm90IG91cnM")
    for missing in ("thinggroup/nobody", "thingtype/nobody", "policy/nobody", f"cacert/{'0' * 64}"):
        refused("ResourceNotFoundException", iot.list_tags_for_resource, resourceArn=ARN + missing)
    iot.create_thing(thingName="untagged")
    for wrong in ("thing/untagged", "thinggroup/", "cacert/untagged", "stream/untagged"):
        refused("InvalidRequestException", iot.list_tags_for_resource, resourceArn=ARN + wrong)
    strange = made[0].replace("000000000000", "1" * 12)
    refused("InvalidRequestException", iot.list_tags_for_resource, resourceArn=strange)


def test_nothing_of_a_thing_type_is_updated_and_of_mqtt_5_it_is_said_that_it_is_not_served(iot: Any) -> None:
    iot.create_thing_type(thingTypeName="growing", thingTypeProperties={"thingTypeDescription": "one"})
    told = {"mqtt5Configuration": {"propagatingAttributes": [{"userPropertyKey": "s", "thingAttribute": "s"}]}}
    refused("NotImplementedException", iot.update_thing_type, thingTypeName="growing", thingTypeProperties=told)
    for other in ({"thingTypeDescription": "two"}, {"searchableAttributes": ["x"]}):
        refused("InvalidRequestException", iot.update_thing_type, thingTypeName="growing", thingTypeProperties=other)
    iot.update_thing_type(thingTypeName="growing")
    assert iot.describe_thing_type(thingTypeName="growing")["thingTypeProperties"]["thingTypeDescription"] == "one"


def test_a_thing_without_a_type_has_up_to_three_attributes(iot: Any) -> None:
    iot.create_thing_type(thingTypeName="wide")
    four = {"attributePayload": {"attributes": dict.fromkeys("abcd", "1")}}
    refused("InvalidRequestException", iot.create_thing, thingName="untyped", **four)
    iot.create_thing(thingName="of-a-type", thingTypeName="wide", **four)
    refused("InvalidRequestException", iot.update_thing, thingName="of-a-type", removeThingType=True)


def test_a_registration_code_that_is_deleted_is_another_next_time(iot: Any) -> None:
    code = iot.get_registration_code()["registrationCode"]
    assert iot.get_registration_code()["registrationCode"] == code
    iot.delete_registration_code()
    assert iot.get_registration_code()["registrationCode"] != code


def test_a_tag_that_is_untagged_is_gone(iot: Any) -> None:
    arn = iot.create_thing_group(thingGroupName="tagged", tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    iot.untag_resource(resourceArn=arn["thingGroupArn"], tagKeys=["a"])
    assert iot.list_tags_for_resource(resourceArn=arn["thingGroupArn"])["tags"] == [{"Key": "b", "Value": "2"}]


def test_authorization_is_tested_without_anybody_who_connects(iot: Any, enroll: Any) -> None:
    thing = enroll("tried", statement("iot:Publish", f"{ARN}topic/mine"))
    asked = [{"actionType": "PUBLISH", "resources": [f"{ARN}topic/{name}"]} for name in ("mine", "theirs")]
    found = iot.test_authorization(principal=thing.arn, authInfos=asked)["authResults"]
    assert [one["authDecision"] for one in found] == ["ALLOWED", "IMPLICIT_DENY"]
    assert found[0]["allowed"]["policies"][0]["policyName"] == "tried"
