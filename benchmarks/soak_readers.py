"""Back ends over AMQP while the server is killed: readers, exclusive readers, messages to devices, feedback.

python benchmarks/soak_readers.py [--kills 20] [--engine sqlite|workers] [--seed 1]

Prints the figures, and what is not as it should be: acknowledged telemetry is read, sequence numbers have no gaps, a
message is not delivered after its completion, and each completion has its feedback. Exit 1 where anything is.
"""

from both_engines import soak

from support.kills.back_end_kills import keep_on

if __name__ == "__main__":

    def run(server, given, dice, _directory, kill):
        proof = keep_on(server, given.kills, dice, kill)
        return {**proof.figures, "faults": proof.wrong}

    soak(__doc__, run)
