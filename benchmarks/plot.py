"""The bars: each measure's ratio to its peer, with its gate."""

from pathlib import Path


def plot(rows: list[dict], target: Path) -> None:
    """Draw `rows` to `target`, an SVG that is the same for the same rows."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "birthmark"
    from matplotlib import pyplot as plt

    names = [f"{row['title']} (to {row['peer']})" for row in rows]
    ratios = [row["ratio"] for row in rows]
    figure, axes = plt.subplots(figsize=(9, 0.6 + 0.42 * len(rows)), layout="constrained")
    bars = axes.barh(names, ratios, color=["#2f6f4f" if row["is_reached"] else "#b5651d" for row in rows])
    axes.bar_label(bars, labels=[f"{ratio:.2f}" for ratio in ratios], padding=4)
    for place, row in enumerate(rows):
        axes.plot([row["gate"]] * 2, [place - 0.4, place + 0.4], color="#333333", linewidth=2)
    axes.axvline(1, color="#9aa5b1", linewidth=1, zorder=0)
    axes.set_xlim(0, max([*ratios, 1]) * 1.15)
    axes.set_xlabel("our server's cost over its peer's; the dark mark is the gate")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, metadata={"Date": None})
