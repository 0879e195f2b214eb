"""A server that lets another EST server sign."""

import time
from collections.abc import Callable, Mapping

from fixes.applied import waited
from fixes.est_peer import an_est_server_for
from fixes.est_scenarios import ANY, ASK, POST, asking
from fixes.scenario import Scenario
from fixes.scene import Scene, commands_in

from support.aws.moto_pca import private_cas
from support.server.servers import RunningServer, a_server


def in_front(scene: Scene, url: str, trust: str, user: str) -> None:
    """Have the scene's server be one that lets the one at `url` sign, and a device ready to ask it."""
    (scene.directory / "password").write_text(f"{user.partition(':')[2]}\n")
    (scene.directory / "password").chmod(0o600)
    config = (
        f'[est.upstream]\nurl = "{url}"\ntrusted_certs = ["{trust}"]\n'
        f'username = "{user.partition(":")[0]}"\npassword_file = "{scene.directory}/password"\n'
    )
    (scene.directory / "front").mkdir()
    scene.server = scene.closing.enter_context(a_server(scene.directory / "front", config))
    scene.environment["BIRTHMARK_DATA"] = str(scene.server.data)
    asking(scene)
    scene.must(ANY)


def below(config: str, *lines: str, stops: bool = False) -> Callable[[Scene], None]:
    """A server with this configuration signs for the scene's; it may stop before the other starts."""

    def prepare(scene: Scene) -> None:
        (scene.directory / "top").mkdir()
        top = scene.closing.enter_context(a_server(scene.directory / "top", config))
        made = top.rows("pki", "user", "create", "front", "--any-name")[0]
        url, trust = top.endpoints["est"]["url"], top.endpoints["trust_bundle"]
        if stops:
            top.stop()
            scene.environment["TOP"] = str(scene.directory / "top")
            _STOPPED.append(top)
        in_front(scene, url, trust, f"front:{made['password']}")
        for line in lines:
            scene.must(line)

    return prepare


_STOPPED: list[RunningServer] = []


def started(scene: Scene, fix: str) -> None:
    """Start the one above, see that it answers as the fix says, and give the other time to ask."""
    _STOPPED.pop().start()
    scene.must(commands_in(fix)[0])
    time.sleep(11)


def of_another(scene: Scene) -> None:
    """An EST server that issues for a name of its own choice."""
    url = an_est_server_for(scene, "somebody-else")
    in_front(scene, url, str(scene.directory / "other.pem"), "front:secret")


def by_private_ca(scene: Scene) -> None:
    """A server for which AWS Private CA shall sign, where the CA has no certificate yet."""
    cas = scene.closing.enter_context(private_cas())
    (scene.directory / "front").mkdir()
    config = f'[ca.private_ca]\narn = "{cas.made(is_active=False)}"\n'
    scene.server = scene.closing.enter_context(a_server(scene.directory / "front", config, environment=cas.environment))
    scene.environment["BIRTHMARK_DATA"] = str(scene.server.data)
    asking(scene)
    scene.must(ANY)
    scene.environment |= cas.environment


CACERTS = 'curl -sSf --cacert "$SSL_CERT_FILE" -o cas "https://$PROVISIONING_HOST:8085/.well-known/est/cacerts"'
GOT = f"{POST} && openssl base64 -d -in issued.b64 | openssl pkcs7 -inform DER -noout"
UPSTREAM: Mapping[str, Scenario] = {
    "ca.private_ca": Scenario(POST, by_private_ca, is_instead=True),
    "ca.upstream_answer": Scenario(POST, of_another, is_instead=True),
    "ca.upstream_unknown": Scenario(CACERTS, below("", stops=True), apply=started),
    "est.upstream_busy": Scenario(
        POST, below("est.renewals_per_s = 0.2\n", POST, ASK.replace("device-1", "device-2")), apply=waited
    ),
    "est.upstream_pending": Scenario(GOT, below("est.approval = true\n"), is_instead=True),
    "est.upstream_refused": Scenario(
        POST, below("", "birthmark pki user rm front --yes --data top/data"), is_instead=True
    ),
}
