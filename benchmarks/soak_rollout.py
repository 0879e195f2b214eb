"""A job to the devices of a swarm, of which 2 % fail, while the server is killed.

python benchmarks/soak_rollout.py [--each 10000] [--kills 20] [--engine sqlite|workers] [--seed 1]

Prints the figures, and what is not as it should be: every execution ends once, as its device says, those that fail are
tried once more, and no device is told twice. Exit 1 where anything is.
"""

from both_engines import soak

from support.kills.rollout_kills import keep_on

if __name__ == "__main__":
    soak(
        __doc__,
        lambda server, given, dice, directory, kill: keep_on(
            server, given.each, dice, directory, kill=kill, kills=given.kills
        ),
        each=10_000,
        config="[limits]\nmax_connections_per_peer = 19000\nmax_unauthenticated_per_peer = 5000\n",
    )
