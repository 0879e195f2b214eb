"""Devices that ask their hub for certificates, while the server is killed.

python benchmarks/soak_reissue.py [--each 12] [--kills 20] [--engine sqlite|workers] [--seed 1]

Prints the figures, and what is not as it should be: each device is let in by what it has, and has one
certificate of each key. Exit 1 where anything is.
"""

from both_engines import soak

from support.kills.reissue_kills import keep_on

if __name__ == "__main__":
    soak(
        __doc__,
        lambda server, given, dice, directory, kill: keep_on(
            server, given.each, dice, directory, kill=kill, kills=given.kills
        ),
        each=12,
    )
