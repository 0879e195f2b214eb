"""Configurations, edge deployments, a job, uploads and imports of a fleet while the server is killed.

python benchmarks/soak_fleet.py [--each 1000] [--kills 20] [--engine sqlite|workers] [--seed 1]

Prints the figures, and what is not as it should be: each twin is in exactly one right state, and each file complete.
Exit 1 where anything is.
"""

from both_engines import soak

from support.kills.fleet_kills import keep_on

if __name__ == "__main__":
    soak(
        __doc__,
        lambda server, given, dice, _, kill: keep_on(server, given.each, dice, kill=kill, kills=given.kills),
        each=1000,
    )
