"""Devices on multiplexed AMQP connections while the server is killed: telemetry, messages, reports, direct methods.

python benchmarks/soak_amqp_devices.py [--kills 20] [--engine sqlite|workers] [--seed 1]

Prints the figures, and what is not as it should be. Acknowledged telemetry is stored once, acknowledged messages are
completed or rejected, and a confirmed one is not delivered again. The last acknowledged report is in the twin. A call
is delivered once at most and has its own response, and every device is connected in the end. Exit 1 for any fault.
"""

from both_engines import soak

from support.kills.amqp_device_kills import keep_on

if __name__ == "__main__":

    def run(server, given, dice, _directory, kill):
        proof = keep_on(server, given.kills, dice, kill)
        return {**proof.figures, "faults": proof.wrong}

    soak(__doc__, run)
