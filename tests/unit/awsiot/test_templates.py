"""Provisioning templates: every function, every property, what is wrong with one, and parameters of all kinds."""

import json
import tracemalloc
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from birthmark.awsiot.rules.policy import parse_policy
from birthmark.awsiot.rules.provisioning_plan_model import Override, RegistrationFailedError, TemplateInvalidError
from birthmark.awsiot.rules.provisioning_templates import (
    MAX_PARAMETERS_BYTES,
    MAX_TEMPLATE_CHARS,
    ParsedTemplate,
    parse_template,
)

THING: dict[str, Any] = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": "Name"}}}
PARAMETERS = {"Name": {"Type": "String"}, "Place": {"Type": "String", "Default": "plant"}}


def a_template(thing: Mapping[str, Any] = THING, **sections: Any) -> ParsedTemplate:
    """Return a template of one thing, and whatever else."""
    return parse_template(json.dumps({"Parameters": PARAMETERS, "Resources": {"thing": thing}, **sections}))


def name_of(value: Any, **given_: str) -> str:
    """Return what a value comes to, as the name of a thing."""
    made = a_template({"Type": "AWS::IoT::Thing", "Properties": {"ThingName": value}}, Mappings=MAPPINGS)
    plan = made.plan({"Name": "a-b-c", **given_})
    assert plan.thing is not None
    return plan.thing.name


MAPPINGS = {"Lines": {"plant": {"line": "4", "names": ["x", "y"]}}}
FUNCTIONS: list[tuple[Any, str]] = [
    ("fixed", "fixed"),
    ({"Ref": "Name"}, "a-b-c"),
    ({"Ref": "Place"}, "plant"),
    ({"Fn::Join": ["-", ["x", {"Ref": "Name"}]]}, "x-a-b-c"),
    ({"Fn::Join": ["", ["x", "y"]]}, "xy"),
    ({"Fn::Select": ["1", {"Fn::Split": ["-", {"Ref": "Name"}]}]}, "b"),
    ({"Fn::Select": [2, ["x", "y", "z"]]}, "z"),
    ({"Fn::Select": [{"Ref": "Index"}, ["x", "y"]]}, "y"),
    ({"Fn::FindInMap": ["Lines", {"Ref": "Place"}, "line"]}, "4"),
    ({"Fn::Select": ["1", {"Fn::FindInMap": ["Lines", "plant", "names"]}]}, "y"),
    ({"Fn::Sub": "x-${Name}-${Place}"}, "x-a-b-c-plant"),
    ({"Fn::Sub": ["${Name}/${own}", {"own": {"Ref": "Place"}}]}, "a-b-c/plant"),
    ({"Fn::Sub": "${!Name} ${iot:ClientId}"}, "${Name} ${iot:ClientId}"),
    ({"Fn::Join": ["", [{"Fn::Sub": "${Place}"}, {"Fn::Join": ["-", ["", {"Ref": "Name"}]]}]]}, "plant-a-b-c"),
]


@pytest.mark.parametrize(("value", "text"), FUNCTIONS, ids=[json.dumps(value) for value, _ in FUNCTIONS])
def test_each_function_comes_to_its_text(value: Any, text: str) -> None:
    parameters = {**PARAMETERS, "Index": {"Type": "String", "Default": "1"}}
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": value}}
    made = parse_template(json.dumps({"Parameters": parameters, "Resources": {"thing": thing}, "Mappings": MAPPINGS}))
    plan = made.plan({"Name": "a-b-c"})
    assert plan.thing is not None
    assert plan.thing.name == text


def test_references_that_multiply_are_refused_after_a_few_thousand() -> None:
    policies = {
        f"r{one}": {
            "Type": "AWS::IoT::Policy",
            "Properties": {"PolicyName": {"Fn::Sub": f"${{r{one + 1}}}" * 18 if one < 10 else ""}},
        }
        for one in range(11)
    }
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Sub": "x${r0}"}}}
    made = parse_template(json.dumps({"Parameters": PARAMETERS, "Resources": {"thing": thing, **policies}}))
    with pytest.raises(RegistrationFailedError, match="the result has more than"):
        made.plan({"Name": "a"})


@pytest.mark.parametrize(
    "value",
    [
        {"Fn::Join": ["s" * 9000, {"Fn::Split": [",", {"Ref": "Name"}]}]},
        {"Fn::Sub": "${Name}" * 1000},
    ],
)
def test_a_text_is_measured_before_it_is_made(value: Any) -> None:
    tracemalloc.start()
    with pytest.raises(RegistrationFailedError, match="the result has more than"):
        name_of(value, Name="," * 60_000)
    assert tracemalloc.get_traced_memory()[1] < 32 * 1024 * 1024
    tracemalloc.stop()


FAILING: list[tuple[Any, str]] = [
    ({"Fn::Select": ["3", ["x"]]}, "Fn::Select: '3' is not an index; the number of values is 1"),
    ({"Fn::Select": ["-1", ["x"]]}, "Fn::Select: '-1' is not an index; the number of values is 1"),
    ({"Fn::FindInMap": ["Lines", "nowhere", "line"]}, "Mappings have no 'Lines.nowhere.line'"),
    ({"Fn::Sub": "${Nobody}"}, "knows no 'Nobody'"),
    ({"Fn::Join": ["-", "text"]}, "a list of strings is required here"),
    ({"Fn::Join": "text"}, "is not written so"),
    ({"Fn::Split": ["", "text"]}, "is not written so"),
    ({"Fn::Split": ["-", "a-b"]}, "a string is required here"),
    (["x"], "a string is required here"),
]


@pytest.mark.parametrize(("value", "why"), FAILING, ids=[json.dumps(value) for value, _ in FAILING])
def test_what_a_function_cannot_do_is_told_with_its_place(value: Any, why: str) -> None:
    with pytest.raises(RegistrationFailedError, match=r"Resources\.thing\.ThingName") as caught:
        name_of(value)
    assert why in str(caught.value)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"Resources": {}}, "no Resources"),
    ({"Resources": {"thing": THING}, "Outputs": {}}, "the section 'Outputs' is not known"),
    ({"Resources": {"thing": {"Type": "AWS::S3::Bucket"}}}, "is not one of AWS::IoT::Thing"),
    ({"Resources": {"thing": {"Type": "AWS::IoT::Thing", "Properties": {}}}}, "has no ThingName"),
    ({"Resources": {"a": THING, "b": THING}}, "more than one AWS::IoT::Thing"),
    ({"Resources": {"thing": {**THING, "Properties": {"ThingName": "x", "BillingGroup": "b"}}}}, "BillingGroup of"),
    ({"Resources": {"thing": {**THING, "DependsOn": "x"}}}, "'DependsOn', which is not supported"),
    ({"Resources": {"thing": {**THING, "OverrideSettings": {"ThingTypeName": "MERGE"}}}}, "cannot have ThingTypeName"),
    ({"Parameters": {"Name": {"Type": "Number"}}}, "is not String"),
    ({"Parameters": {"Name": {"Type": "String", "Default": 7}}}, "is not a string"),
    ({"Resources": {"thing": {**THING, "Properties": {"ThingName": {"Ref": "Nobody"}}}}}, "names no parameter"),
    ({"Resources": {"thing": {**THING, "Properties": {"ThingName": {"Fn::Base64": "x"}}}}}, "Fn::Base64 is not"),
    ({"Resources": {"thing": {**THING, "Properties": {"ThingName": {"Ref": "Name", "b": 1}}}}}, "alone in its braces"),
    ({"Resources": {"p": {"Type": "AWS::IoT::Policy", "Properties": {}}}}, "needs PolicyName or PolicyDocument"),
    ({"Resources": {"c": {"Type": "AWS::IoT::Certificate", "Properties": {}}}}, "needs one of CertificateId"),
    ({"Mappings": {"Lines": {"x": {"y": 7}}}}, "neither a string nor a list"),
    ({"Mappings": {"Lines": "x"}}, "is not a JSON object"),
]


@pytest.mark.parametrize(("sections", "why"), INVALID, ids=[why for _, why in INVALID])
def test_what_is_wrong_with_a_template_is_told_when_it_is_made(sections: dict[str, Any], why: str) -> None:
    document = {"Parameters": PARAMETERS, "Resources": {"thing": THING}, **sections}
    with pytest.raises(TemplateInvalidError) as caught:
        parse_template(json.dumps(document))
    assert why in str(caught.value)


def test_a_template_that_is_large_deep_or_no_json_is_refused() -> None:
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    for body in ("x" * (MAX_TEMPLATE_CHARS + 1), "no json", "[]", json.dumps({"DeviceConfiguration": {"a": deep}})):
        with pytest.raises(TemplateInvalidError):
            parse_template(body)


def test_a_thing_has_what_its_properties_and_overrides_say() -> None:
    plan = a_template(
        {
            "Type": "AWS::IoT::Thing",
            "Properties": {
                "ThingName": {"Ref": "Name"},
                "AttributePayload": {"line": {"Ref": "Place"}},
                "ThingTypeName": "pump",
                "ThingGroups": ["v1", {"Ref": "Place"}, "v1"],
            },
            "OverrideSettings": {"ATTRIBUTE_PAYLOAD": "MERGE", "ThingGroups": "REPLACE"},
        }
    ).plan({"Name": "one", "Unknown": "left aside"})
    assert plan.thing is not None
    assert (plan.thing.attributes, plan.thing.type_name) == ({"line": "plant"}, "pump")
    assert plan.thing.groups == ("v1", "plant")
    assert plan.thing.override("AttributePayload") is Override.MERGE
    assert plan.thing.override("ThingTypeName") is Override.DO_NOTHING


def test_a_parameter_without_a_default_has_to_be_given() -> None:
    with pytest.raises(RegistrationFailedError, match="Parameters: Name is missing"):
        a_template().plan({"Place": "x"})


def test_a_parameter_of_the_subject_that_is_missing_is_told_with_its_reason() -> None:
    name = "AWS::IoT::Certificate::CommonName"
    thing = {"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Ref": name}}}
    made = parse_template(json.dumps({"Parameters": {name: {"Type": "String"}}, "Resources": {"thing": thing}}))
    with pytest.raises(RegistrationFailedError, match="the certificate's subject has none or several"):
        made.plan({})


def test_parameters_are_bounded() -> None:
    with pytest.raises(RegistrationFailedError, match="more than 65536 bytes"):
        a_template().plan({"Name": "x" * MAX_PARAMETERS_BYTES})


def test_what_many_references_come_to_is_bounded() -> None:
    refs = [{"Ref": "Name"}] * 300
    made = a_template({"Type": "AWS::IoT::Thing", "Properties": {"ThingName": {"Fn::Join": ["", refs]}}})
    with pytest.raises(RegistrationFailedError, match="the result has more than"):
        made.plan({"Name": "x" * 60_000})


POLICY = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Action": "iot:Publish",
        "Resource": {"Fn::Sub": "arn:aws:iot:*:*:topic/${Name}/*"},
    },
}


def document_of(name: str, document: Any) -> str:
    policy = {"Type": "AWS::IoT::Policy", "Properties": {"PolicyDocument": document}}
    made = parse_template(json.dumps({"Parameters": PARAMETERS, "Resources": {"policy": policy}}))
    (found,) = made.plan({"Name": name}).policies
    assert found.document is not None
    return found.document


@pytest.mark.parametrize("name", ["*", "a*", "?", "${iot:ClientId}", 'a"', "a\\", "a/b", "+", "#", "a\nb", "a{b"])
@pytest.mark.parametrize(
    "document", [POLICY, {"Fn::Join": ["", [json.dumps("x"), {"Ref": "Name"}]]}], ids=["object", "text"]
)
def test_no_parameter_widens_a_policy(name: str, document: Any) -> None:
    with pytest.raises(RegistrationFailedError, match="reads as more than itself"):
        document_of(name, document)


@given(st.text(max_size=30))
def test_whatever_a_parameter_is_the_policy_is_about_its_topic_alone(name: str) -> None:
    try:
        document = document_of(name, POLICY)
    except RegistrationFailedError:
        return
    (statement,) = parse_policy("made", document).statements
    assert statement.resources == (f"arn:aws:iot:*:*:topic/{name}/*",)


@given(st.dictionaries(st.text(max_size=10), st.recursive(st.text(max_size=10) | st.integers() | st.none(), st.lists)))
def test_any_document_is_a_template_or_refused(document: dict[str, Any]) -> None:
    try:
        parse_template(json.dumps(document))
    except TemplateInvalidError:
        return
