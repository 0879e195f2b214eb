"""What the audit trail and the feed call an action, in the words of who reads a page."""

from collections.abc import Mapping
from typing import Any

from birthmark.console.web.language import say


def marked(text: str) -> str:
    """Return a text that is translated where it is shown."""
    return text


ACTIONS: Mapping[str, str] = {
    "audit.break": marked("noted a break of the audit trail"),
    "alert.raised": marked("raised an alert"),
    "alert.over": marked("ended an alert"),
    "alert.silence": marked("silenced an alert"),
    "alert.unsilence": marked("let an alert speak again"),
    "awsiot.authorizer_change": marked("changed a custom authorizer"),
    "awsiot.authorizer_create": marked("made a custom authorizer"),
    "awsiot.authorizer_delete": marked("removed a custom authorizer"),
    "awsiot.ca_add": marked("registered a CA at AWS"),
    "awsiot.ca_delete": marked("removed a CA at AWS"),
    "awsiot.ca_update": marked("changed a CA at AWS"),
    "awsiot.certificate_add": marked("registered a certificate at AWS"),
    "awsiot.certificate_delete": marked("removed a certificate at AWS"),
    "awsiot.certificate_status": marked("changed the state of a certificate at AWS"),
    "awsiot.default_authorizer_clear": marked("let no custom authorizer be the default"),
    "awsiot.default_authorizer_set": marked("made a custom authorizer the default"),
    "awsiot.key_add": marked("made an access key"),
    "awsiot.key_remove": marked("removed an access key"),
    "awsiot.policy_attach": marked("attached a policy"),
    "awsiot.policy_change": marked("changed a policy"),
    "awsiot.policy_create": marked("made a policy"),
    "awsiot.policy_delete": marked("removed a policy"),
    "awsiot.policy_detach": marked("detached a policy"),
    "awsiot.registration_code_delete": marked("removed the registration code"),
    "awsiot.role_alias_change": marked("changed a role alias"),
    "awsiot.role_alias_create": marked("made a role alias"),
    "awsiot.role_alias_delete": marked("removed a role alias"),
    "awsiot.certificate_claim": marked("said whether a certificate at AWS is a claim"),
    "awsiot.certificate_renew": marked("carried over what a certificate at AWS has to its successor"),
    "awsiot.task_start": marked("began a bulk registration"),
    "awsiot.task_stop": marked("stopped a bulk registration"),
    "awsiot.template_change": marked("changed a provisioning template"),
    "awsiot.template_create": marked("made a provisioning template"),
    "awsiot.template_delete": marked("removed a provisioning template"),
    "awsiot.shadow_delete": marked("removed a shadow"),
    "awsiot.shadow_update": marked("changed a shadow"),
    "awsiot.connection_delete": marked("ended a client's connection at AWS"),
    "awsiot.events_configure": marked("chose what AWS announces"),
    "awsiot.indexing_configure": marked("chose what AWS indexes"),
    "awsiot.tag": marked("wrote tags"),
    "awsiot.untag": marked("took tags off"),
    "awsiot.thing_type_update": marked("changed a thing type"),
    "awsiot.thing_attach": marked("attached a certificate to a thing"),
    "awsiot.thing_create": marked("made a thing"),
    "awsiot.thing_delete": marked("removed a thing"),
    "awsiot.thing_detach": marked("detached a certificate from a thing"),
    "awsiot.thing_group_add": marked("added a thing to a group"),
    "awsiot.thing_group_create": marked("made a thing group"),
    "awsiot.thing_group_delete": marked("removed a thing group"),
    "awsiot.thing_group_remove": marked("took a thing out of a group"),
    "awsiot.thing_group_update": marked("changed a thing group"),
    "awsiot.thing_type_create": marked("made a thing type"),
    "awsiot.thing_type_delete": marked("removed a thing type"),
    "awsiot.thing_type_deprecate": marked("deprecated a thing type"),
    "awsiot.thing_update": marked("changed a thing"),
    "ca.rollover.start": marked("began an exchange of the root"),
    "ca.rollover.next": marked("took the next step of the exchange of the root"),
    "ca.rollover.back": marked("took a step of the exchange of the root back"),
    "ca.root_noted": marked("noted the root of this server"),
    "certificate.comeback": marked("let a device come back whose certificate had ended"),
    "certificate.issue": marked("issued a certificate"),
    "certificate.renewed": marked("renewed a certificate"),
    "certificate.revoke": marked("revoked a certificate"),
    "device.connect": marked("came online"),
    "device.disconnect": marked("said goodbye"),
    "device.lose": marked("lost its connection"),
    "device.refuse": marked("was refused"),
    "device.revoke": marked("took a device back"),
    "dps.ca_add": marked("put a CA on record"),
    "dps.ca_code": marked("asked for the verification code of a CA"),
    "dps.ca_remove": marked("removed a CA from the record"),
    "dps.ca_trust": marked("trusted a CA as it is"),
    "dps.ca_verify": marked("verified a CA"),
    "dps.create": marked("made a provisioning service"),
    "dps.delete": marked("removed a provisioning service"),
    "dps.enrollment_delete": marked("took an enrollment off the record"),
    "dps.enrollment_key_show": marked("looked at the key of an enrollment"),
    "dps.enrollment_put": marked("saved an enrollment"),
    "dps.key_rotate": marked("rotated a key of a provisioning service"),
    "dps.key_show": marked("looked at a key of a provisioning service"),
    "dps.link": marked("linked a hub"),
    "dps.move": marked("moved a device to another hub"),
    "dps.register": marked("registered"),
    "dps.registration_delete": marked("removed a registration"),
    "dps.release": marked("let a registration go"),
    "dps.unlink": marked("unlinked a hub"),
    "est.authority.add": marked("listed a registration authority"),
    "est.authority.remove": marked("removed a registration authority"),
    "est.bootstrap.add": marked("accepted a CA that introduces devices"),
    "est.bootstrap.remove": marked("stopped accepting a CA that introduces devices"),
    "est.request.approve": marked("approved a request for a certificate"),
    "est.request.reject": marked("rejected a request for a certificate"),
    "est.token.add": marked("made a token for one enrollment"),
    "est.user.add": marked("made an EST user"),
    "est.user.remove": marked("removed an EST user"),
    "est.user.show": marked("looked at the password of an EST user"),
    "iothub.create": marked("made a hub"),
    "iothub.delete": marked("removed a hub"),
    "iothub.device_delete": marked("removed a device from a hub"),
    "iothub.device_key_show": marked("looked at the key of a device"),
    "iothub.device_put": marked("saved a device at a hub"),
    "iothub.device_take_back": marked("took a device back at a hub"),
    "iothub.key_rotate": marked("rotated a key of a hub"),
    "iothub.key_show": marked("looked at a key of a hub"),
    "iothub.c2d_sent": marked("sent a message to a device"),
    "iothub.twin_changed": marked("changed a twin"),
    "key.revoke": marked("revoked a key"),
    "name.lose": marked("shut a name out"),
    "name.release": marked("let a name go"),
    "people.allow": marked("let somebody take more devices back today"),
    "people.approval_approve": marked("approved what somebody asked for"),
    "people.approval_ask": marked("asked for a second person"),
    "people.approval_reject": marked("rejected what somebody asked for"),
    "people.approval_use": marked("did what was approved"),
    "people.command_let_in": marked("let a command in"),
    "people.command_refused": marked("did not let a command in"),
    "people.console_open": marked("made a link that opens the console"),
    "people.invite": marked("invited somebody"),
    "people.link": marked("linked an account of a provider"),
    "people.password_remove": marked("removed a password"),
    "people.password_set": marked("set a password"),
    "people.role_add": marked("gave a role"),
    "people.role_remove": marked("took a role"),
    "people.session_end": marked("ended a session"),
    "people.sign_in": marked("signed in"),
    "people.sign_in_refused": marked("typed a wrong password"),
    "people.token_add": marked("made a token"),
    "people.token_remove": marked("took a token back"),
    "people.user_create": marked("put a person on record"),
    "people.user_remove": marked("removed a person"),
    "server.machine_invite": marked("invited a machine"),
    "server.machine_join": marked("joined as a machine"),
    "server.machine_lead": marked("took the lead"),
    "server.restored": marked("came back from a backup"),
    "webhook.create": marked("made a webhook"),
    "webhook.pause": marked("paused a webhook"),
    "webhook.put_aside": marked("put events of a webhook aside"),
    "webhook.remove": marked("removed a webhook"),
    "webhook.replay": marked("sent events of a webhook once more"),
    "webhook.resume": marked("let a webhook go on"),
    "webhook.rotate": marked("rotated the secret of a webhook"),
}
"""By the action, as somebody who did it is the subject of the sentence."""

THINGS: Mapping[str, str] = {
    one: one
    for one in (
        marked("enrollment"),
        marked("group"),
        marked("registration"),
        marked("device"),
        marked("thing"),
        marked("certificate"),
        marked("certificate of another CA"),
        marked("name"),
        marked("user"),
        marked("token"),
        marked("request"),
        marked("refused"),
        marked("enabled"),
        marked("disabled"),
        marked("assigned"),
        marked("on record"),
        marked("good"),
        marked("revoked"),
        marked("ended"),
        marked("active"),
        marked("inactive"),
        marked("shut out"),
        marked("waits"),
        marked("approved"),
        marked("rejected"),
        marked("connected"),
        marked("away"),
        marked("unassigned"),
        marked("ending"),
        marked("taken back"),
        marked("would be taken back"),
        marked("was taken back"),
        marked("left"),
        marked("failed"),
        marked("place"),
        marked("from"),
        marked("reason"),
        marked("profile"),
        marked("status"),
    )
}
"""What the operator interface calls parts of a device and how they stand, in the language of who reads."""

BAD = frozenset({"device.refuse", "people.sign_in_refused", "alert.raised", "device.revoke", "certificate.revoke"})
WARNING = frozenset({"device.lose", "certificate.comeback", "name.lose", "iothub.device_take_back", "key.revoke"})


def words_of(action: str, detail: Mapping[str, Any]) -> str:
    """Return an action in words; one that is new here by its name."""
    if action == "certificate.issue" and "renews" in detail:
        action = "certificate.renewed"
    known = ACTIONS.get(action)
    return action if known is None else say(known)


def word_of(text: str) -> str:
    """Return a word of the operator interface as who reads has it; one that is none of these as it is."""
    return say(THINGS[text]) if text in THINGS else text


def kind_of(action: str) -> str:
    """Return how it is marked: nothing for what is usual."""
    return "bad" if action in BAD else "warn" if action in WARNING else ""
