"""Next action of a well-behaved, connected device."""

import math
from dataclasses import dataclass
from enum import StrEnum

from birthmark.swarm.model import DeviceGroup
from birthmark.swarm.rules import device_event_schedule
from birthmark.swarm.rules.device_event_schedule import Dice


class Act(StrEnum):
    """Action that is due."""

    SEND = "send"
    RENEW = "renew"
    JOB = "job"  # its task is done
    CUT = "cut"  # lost, without DISCONNECT
    STORM = "storm"  # CUT with an instant return
    LEAVE = "leave"  # DISCONNECT, then a later return


@dataclass(slots=True)
class BehaviorPlan:
    """Due times of the actions on this connection, in seconds of the run; infinity means never."""

    send_s: float = math.inf
    renew_s: float = math.inf
    job_s: float = math.inf
    cut_s: float = math.inf
    storm_s: float = math.inf
    leave_s: float = math.inf

    @classmethod
    def on_connecting(cls, group: DeviceGroup, now: float, dice: Dice, renew_s: float) -> "BehaviorPlan":
        """Return the plan of a connection that starts now."""
        return cls(
            send_s=device_event_schedule.next_message_s(group, now, dice.roll(), is_first=True),
            renew_s=renew_s,
            cut_s=device_event_schedule.next_cut_s(group, now, dice.roll()),
            storm_s=device_event_schedule.next_storm_s(group, now),
            leave_s=device_event_schedule.next_leave_s(group, now),
        )

    def next(self) -> tuple[Act, float]:
        """Return the next action and its time; at equal times, the more disruptive one."""
        return min(
            (
                (Act.STORM, self.storm_s),
                (Act.CUT, self.cut_s),
                (Act.LEAVE, self.leave_s),
                (Act.RENEW, self.renew_s),
                (Act.JOB, self.job_s),
                (Act.SEND, self.send_s),
            ),
            key=lambda one: one[1],
        )
