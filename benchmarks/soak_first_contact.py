"""Devices that come to AWS for the first time, 100 by each of three ways, while the server is killed.

python benchmarks/soak_first_contact.py [--each 100] [--kills 20] [--engine sqlite|workers] [--files] [--seed 1]

By JITP, by claim with the key in a token (`--files`: in a file), and by a bulk registration. Prints the figures, and
what is not as it should be: each device is one thing with one active certificate, and nothing is half. Exit 1 where
anything is.
"""

from both_engines import soak

from support.kills.first_contacts import come

if __name__ == "__main__":
    soak(
        __doc__,
        lambda server, given, dice, directory, kill: come(
            server, directory, given.each, dice, kill=kill, kills=given.kills, tokens=not given.files
        ),
        each=100,
    )
