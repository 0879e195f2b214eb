"""Files, programs and addresses that are not there: the fix shows what there is to choose from."""

from collections.abc import Mapping

from fixes.element_scenarios import chip
from fixes.scenario import Scenario, typed

FILES: Mapping[str, Scenario] = {
    "cli.file_encoding": Scenario(
        "birthmark aws template create site template.json",
        typed("printf '\"\\366\"' > template.json"),
        is_instead=True,
    ),
    "cli.file_missing": Scenario("birthmark device enroll --cert nowhere.pem", is_instead=True),
    "cli.file_unusable": Scenario(
        "birthmark manifest create --out plain/shipment", typed("touch plain"), is_instead=True, types_all=True
    ),
    "elements.file_missing": Scenario("birthmark chip write nowhere.pem", chip(), is_instead=True),
    "elements.program_missing": Scenario(
        "birthmark chip exec -- app.py one", chip("echo 'import sys; sys.argv[1]' > app.py"), is_instead=True
    ),
    "install.out_of_reach": Scenario(
        'birthmark server install --root "$PWD/image" --program /home/ann/birthmark', is_instead=True
    ),
    "net.address_missing": Scenario(
        "birthmark serve --data another --listen 203.0.113.77", typed("unset BIRTHMARK_DATA"), is_instead=True
    ),
}
