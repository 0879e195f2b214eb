"""User rights by operation, as named in the service model. Access keys have all rights."""

from collections.abc import Mapping

from birthmark.auth.permission_statements import Right

_LOOKS = ("Describe", "Get", "List", "Search")
_OTHERS: Mapping[str, Right] = {
    **dict.fromkeys(("Publish", "UpdateThingShadow", "DeleteThingShadow", "DeleteConnection"), Right.OPERATE),
    **dict.fromkeys(
        (
            *("CreateJob", "UpdateJob", "CancelJob", "DeleteJob", "AssociateTargetsWithJob"),
            *("CancelJobExecution", "DeleteJobExecution", "CreateJobTemplate", "DeleteJobTemplate"),
            *("StartNextPendingJobExecution", "UpdateJobExecution"),
        ),
        Right.OPERATE,
    ),
    **dict.fromkeys(("CreateDynamicThingGroup", "UpdateDynamicThingGroup", "DeleteDynamicThingGroup"), Right.OPERATE),
    **dict.fromkeys(("UpdateCertificate", "DeleteCertificate"), Right.REVOKE),
    **dict.fromkeys(
        ("RegisterCACertificate", "UpdateCACertificate", "DeleteCACertificate", "DeleteRegistrationCode"), Right.TRUST
    ),
    "TestAuthorization": Right.READ,
    **dict.fromkeys(("UpdateEventConfigurations", "UpdateIndexingConfiguration"), Right.ADMINISTER),
    **dict.fromkeys(
        (
            "CreateAuthorizer",
            "UpdateAuthorizer",
            "DeleteAuthorizer",
            "SetDefaultAuthorizer",
            "ClearDefaultAuthorizer",
        ),
        Right.TRUST,
    ),
    "TestInvokeAuthorizer": Right.OPERATE,
    **dict.fromkeys(
        (
            "CreatePolicy",
            "CreatePolicyVersion",
            "DeletePolicy",
            "DeletePolicyVersion",
            "SetDefaultPolicyVersion",
            "CreateProvisioningTemplate",  # a template may hold a policy
            "CreateProvisioningTemplateVersion",
            "UpdateProvisioningTemplate",
            "DeleteProvisioningTemplate",
            "DeleteProvisioningTemplateVersion",
            "RegisterThing",
            "StartThingRegistrationTask",
            "ListThingRegistrationTaskReports",  # its URLs need no credentials
        ),
        Right.ADMINISTER,
    ),
    **dict.fromkeys(
        (
            *("CreateTopicRule", "ReplaceTopicRule", "DeleteTopicRule", "EnableTopicRule", "DisableTopicRule"),
            *("CreateTopicRuleDestination", "UpdateTopicRuleDestination", "DeleteTopicRuleDestination"),
            "ConfirmTopicRuleDestination",
        ),
        Right.ADMINISTER,  # they export device data
    ),
    **dict.fromkeys(("CreateRoleAlias", "UpdateRoleAlias", "DeleteRoleAlias"), Right.ADMINISTER),
}
PLACE = "aws"


def right_for(operation: str, status: str = "") -> Right:
    """Return the required right; unlisted operations that do not read require `ENROLL`.

    Setting a certificate ACTIVE enrolls a device; any other `status` disables it. Reactivating a revoked certificate
    also requires the right to revoke (`CertificateOperations`).
    """
    if operation == "UpdateCertificate" and status == "ACTIVE":
        return Right.ENROLL
    return _OTHERS.get(operation, Right.READ if operation.startswith(_LOOKS) else Right.ENROLL)
