"""Devices that change their hub, and devices made in bulk, while the server is killed.

python benchmarks/soak_registry.py [--each 200] [--kills 20] [--engine sqlite|workers] [--seed 1]

Prints the figures, and what is not as it should be: each device is at one hub with its twin, and counted once. Exit 1
where anything is.
"""

from both_engines import soak

from support.kills.registry_kills import keep_on

if __name__ == "__main__":
    soak(
        __doc__,
        lambda server, given, dice, _, kill: keep_on(server, given.each, dice, kill=kill, kills=given.kills),
        each=200,
    )
