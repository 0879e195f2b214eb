"""A process that takes chips of plain keys in, so many or until it is killed, and says each board that was taken in."""

import itertools
import os
import sys
from pathlib import Path

from birthmark.clock_and_entropy import SystemClock, SystemEntropy
from birthmark.keys.file_key import FileKey
from birthmark.keys.possession import sign_nonce
from birthmark.manifests.bundle.intake_records import ChipIntake
from birthmark.manifests.bundle.station import open_station
from support.pki.pki_builders import a_device

with open_station(Path(sys.argv[1]), clock=SystemClock(), entropy=SystemEntropy(), name="north") as station:
    for number in itertools.islice(itertools.count(), int(sys.argv[2]) if sys.argv[2:] else None):
        chip = a_device(None, "chip")
        wish = ChipIntake(f"B-{os.getpid()}-{number}", "ann", (chip.certificate,))
        asked = station.ask(wish)
        station.take(wish, asked, sign_nonce(FileKey(Path("chip"), chip.private_key), asked.nonce))
        sys.stdout.write(f"{wish.board}\n")
        sys.stdout.flush()
