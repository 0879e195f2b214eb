"""People, their roles and tokens, and who is told: what is refused there, and what one does then."""

from collections.abc import Callable, Mapping

from fixes.scenario import Scenario, typed
from fixes.scene import Scene


def someone(name: str) -> Callable[[Scene], None]:
    return typed(f"birthmark user create {name} --role viewer --out {name}.invitation")


HOOK = "birthmark webhook create works https://hooks.example.com/"

MAIL = "[mail]\nhost = 'smtp.example.com'\nsender = 'birthmark@example.com'\n"
PEOPLE: Mapping[str, Scenario] = {
    "alert.rule_unknown": Scenario("birthmark alert silence ca-begins --lifetime 1h --reason why", is_instead=True),
    "alert.silence_missing": Scenario("birthmark alert unsilence ca-ends --subject nobody", is_instead=True),
    "alert.silence_too_long": Scenario("birthmark alert silence ca-ends --lifetime 90d --reason why", is_instead=True),
    "outbound.mail_address_invalid": Scenario(
        "birthmark webhook create nobody 'mailto:a b@example.com'", config=MAIL, is_instead=True
    ),
    "feed.types_invalid": Scenario(f"{HOOK} --type birthmark.nothing", is_instead=True),
    "feed.form_invalid": Scenario(
        "birthmark webhook create grid mailto:ops@example.com --format eventgrid", is_instead=True
    ),
    "feed.handshake_failed": Scenario(
        "birthmark webhook create grid http://127.0.0.1:9/ --format eventgrid",
        config="[outbound]\nallow = ['127.0.0.0/8']\n",
        is_instead=True,
    ),
    "feed.webhook_exists": Scenario(HOOK, typed(HOOK), is_instead=True),
    "feed.webhook_missing": Scenario("birthmark webhook pause nowhere", is_instead=True),
    "outbound.plain_refused": Scenario(
        "birthmark webhook create plant http://8.8.8.8/",
        config="[outbound]\nallow = ['127.0.0.0/8']\n",
        is_instead=True,
    ),
    "outbound.url_invalid": Scenario("birthmark webhook create plant file:///etc/passwd", is_instead=True),
    "people.approval_missing": Scenario("birthmark approval approve 00", is_instead=True),
    "people.grant_missing": Scenario("birthmark role revoke anna-0 admin", someone("anna-0"), is_instead=True),
    "people.name_reserved": Scenario(
        "birthmark user create operator --role viewer --out operator.invitation", is_instead=True
    ),
    "people.place_invalid": Scenario(
        "birthmark role grant anna-1 viewer --at nowhere", someone("anna-1"), is_instead=True
    ),
    "people.place_missing": Scenario(
        "birthmark role grant anna-4 viewer --at hub/nowhere", someone("anna-4"), is_instead=True
    ),
    "people.session_missing": Scenario("birthmark session rm 00 --yes", is_instead=True),
    "people.token_lifetime": Scenario(
        "birthmark token create --user anna-2 --lifetime 2s", someone("anna-2"), is_instead=True
    ),
    "people.token_missing": Scenario("birthmark token rm 00 --yes", is_instead=True),
    "people.user_exists": Scenario(
        "birthmark user create anna-3 --role viewer --out again.invitation", someone("anna-3"), is_instead=True
    ),
    "people.user_missing": Scenario("birthmark user show anna-9", number=1),
}
