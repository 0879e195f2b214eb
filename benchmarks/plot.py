"""The bars: each measure's cost beside its peer's, with its gate."""

from pathlib import Path

CHEAPER, DEARER = "#2f6f4f", "#b5651d"
TICKS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8)


def plot(rows: list[dict], target: Path) -> None:
    """Draw `rows` to `target`, an SVG that is the same for the same rows.

    Bars begin at the peer's cost: to the left is cheaper, to the right dearer, each tick by twice.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "birthmark"
    mpl.rcParams["font.size"] = 9
    from matplotlib import pyplot as plt

    places = range(len(rows))  # by number: two measures may have one title
    figure, axes = plt.subplots(figsize=(10, 1.2 + 0.3 * len(rows)), layout="constrained")
    costs, gates = [row["ratio"] for row in rows], [row["gate"] for row in rows]
    colors = [CHEAPER if row["is_reached"] else DEARER for row in rows]
    axes.set_xscale("log", base=2)
    axes.barh(places, [cost - 1 for cost in costs], left=1, color=colors, height=0.62)
    for place, cost, gate in zip(places, costs, gates, strict=True):
        axes.plot([gate] * 2, [place - 0.42, place + 0.42], color="#222222", linewidth=2)
        at_edge = axes.get_yaxis_transform()
        axes.text(1.005, place, f"{cost:.2f}", transform=at_edge, va="center", color=DEARER if cost > gate else "black")
    axes.axvline(1, color="#9aa5b1", linewidth=1, zorder=0)
    axes.set_yticks(places, [f"{row['name']}  {row['title']}, beside {row['peer']}" for row in rows])
    axes.set_xlim(min([*costs, *gates, 0.5]) / 1.7, max([*costs, *gates, 2]) * 1.5)
    shown = [tick for tick in TICKS if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(shown, [f"1/{round(1 / tick)}" if tick < 1 else f"{tick:.0f}" for tick in shown])
    axes.minorticks_off()
    axes.set_xlabel("ours over the peer's, left is cheaper; the dark mark is the gate")
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.savefig(target, metadata={"Date": None})
