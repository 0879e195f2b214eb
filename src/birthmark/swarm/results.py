"""What came of a run as plain data: what a program reads, and every report is made of."""

from collections import Counter
from typing import Any

from birthmark.swarm.run import Outcome

FORMAT = "birthmark-swarm/1"


def results_of(outcome: Outcome) -> dict[str, Any]:
    """Return the run as JSON has it."""
    return {
        "format": FORMAT,
        "summary": summary_of(outcome),
        "timeline": outcome.counting.timeline,
        "devices": [
            {
                "device": tally.name,
                "group": tally.group,
                "fault": tally.fault,
                "state": tally.state,
                "registrations": tally.registrations,
                "connects": tally.connects,
                "lost": tally.lost,
                "sent": tally.sent,
                "acknowledged": tally.acknowledged,
                "renewals": tally.renewals,
                "errors": tally.errors,
                "last_error": tally.last_error,
                "verdict": tally.verdict if tally.fault else "",
                "how": tally.how,
                "held": judgement.held,
                "why": judgement.why,
            }
            for tally, judgement in zip(outcome.tallies, outcome.judgements, strict=True)
        ],
    }


def summary_of(outcome: Outcome) -> dict[str, Any]:
    """Return the run in short."""
    scenario, counting = outcome.scenario, outcome.counting
    broken = [one for one in outcome.judgements if not one.held]
    faults = Counter(f"{one.fault}: {one.verdict}" for one in outcome.tallies if one.fault)
    totals = counting.totals
    return {
        "title": scenario.title,
        "target": scenario.wish.where,
        "devices": scenario.count,
        "seconds": round(outcome.lasted_s, 1),
        "stopped": outcome.was_stopped,
        "held": outcome.held,
        "broken": len(broken),
        "why": dict(Counter(one.why for one in broken).most_common(10)),
        "connected_at_the_end": int(counting.timeline[-1]["connected"]) if counting.timeline else 0,
        "connected_at_most": int(max((point["connected"] for point in counting.timeline), default=0)),
        "connects": totals["connect"],
        "registrations": totals["register"],
        "renewals": totals["renew"],
        "sent": totals["sent"],
        "acknowledged": totals["publish"],
        "lost": totals["lost"],
        "cut": totals["cut"],
        "jobs": totals["job"],
        "jobs_failed": totals["jobs failed"],
        "errors": dict(counting.errors.most_common()),
        "causes": counting.causes,
        "faults": dict(faults),
        "latencies": counting.spread(),
        "kib_each": round(max(0, outcome.grown_kib) / max(1, scenario.count), 1),
        "cpu_s": round(outcome.cpu_s, 2),
    }
