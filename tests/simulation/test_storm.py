"""A fleet whose certificates all end at one moment, and a server that was away: nobody is lost, and nobody overrun."""

import pytest

from simulation.storm import Storm, run, storms

FLEET = Storm(devices=10_000, per_s=40.0)


@pytest.mark.parametrize("storm", storms(FLEET).values(), ids=storms(FLEET))
def test_every_device_renews_in_time_and_the_load_is_even(storm: Storm) -> None:
    figures = run(storm).figures()
    assert (figures["issued"], figures["expired"]) == (storm.devices, 0)
    # Who was told when to renew comes all through the window, and the outage's share on top of that.
    bound = 2 if storm.window[0] == storm.window[1] or storm.all_boot else 3
    assert max(figures["issued_peak_to_mean"], figures["connections_peak_to_mean"]) <= bound
