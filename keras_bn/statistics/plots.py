"""Draw the rows of reports about batch-norm layers with matplotlib, the extra `plots`.

    plot_movement    rows of a StatisticsReport: how far a new estimate moved the statistics
    plot_shift       rows of a CovariateShiftReport: what the layers see against what they store
    plot_gap         rows of a GapReport: batches, and their average, against what the layers store
    plot_monitor     what a CovariateShiftMonitor saw: internal covariate shift, epoch by epoch

Each returns a `matplotlib.figure.Figure`, for `figure.savefig("shift.png")` or for a notebook to
show. pyplot is not used, so there is no window, no backend and nothing to close.

A layer is a row, the first that the model calls on top. Where a report has figures for each channel
it shows their spread: a dot at the median, a bar from the 10 % to the 90 % quantile, and a thin
line to the extremes. Divergences span decades and are drawn on a logarithmic scale.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_gap", "plot_monitor", "plot_movement", "plot_shift"]

BLUE, LIGHT_BLUE, ORANGE = "#0072B2", "#A6CEE3", "#D55E00"  # apart for the colour-blind as well
DARK, GREY, PALE = "#222222", "#6E6E6E", "#E4E4E4"
SMALL, LARGE = 8.0, 9.0  # points
ROW, CHARACTER = 0.21, 0.065  # inches
LONGEST_LABEL, LABEL_START = 44, 10  # characters
TALL = 20  # rows; from there on an axis is numbered above as well
LINEAR_UP_TO = 10.0  # beyond this an axis with signs is logarithmic outside of [-1, 1]
DECADES = 1e-6  # of the largest divergence: what is smaller is drawn there


def plot_movement(layers: Sequence[Any]) -> "Figure":
    """Draw how far each layer's statistics moved.

    Args:
        layers: The `layers` of what `estimate_population_statistics` or `adapt_statistics`
            returned.

    Returns:
        A figure with two panels: the means, in old standard deviations, and the variances, as the
        logarithm of new over old.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the report has no layers.
    """
    figure, (mean, variance) = _panels("plot_movement: `report`", [x.layer for x in layers], 2)
    _draw_signed(mean, [layer.mean_shift for layer in layers])
    _draw_signed(variance, [layer.log_variance_ratio for layer in layers])
    mean.set_xlabel("mean: new - old\n(old standard deviations)", fontsize=LARGE)
    variance.set_xlabel("variance: ln(new / old)\n(0.69: doubled)", fontsize=LARGE)
    _add_legend(figure, mean)
    return figure


def plot_shift(layers: Sequence[Any]) -> "Figure":
    """Draw how far each layer's input is from what the layer stores.

    Args:
        layers: The `layers` of what `measure_covariate_shift` returned.

    Returns:
        A figure with three panels: the means, in stored standard deviations; the variances, as the
        logarithm of observed over stored; and the divergence in nats, with the channels' mean, by
        which layers are ranked, and the mean to be expected by chance, from sampling alone. On the
        right stands how many of the channels are shifted beyond chance.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the report has no layers.
    """
    figure, panels = _panels("plot_shift: `report`", [layer.layer for layer in layers], 3)
    mean, variance, divergence = panels
    _draw_signed(mean, [layer.mean_difference for layer in layers])
    _draw_signed(variance, [layer.log_variance_ratio for layer in layers])
    _draw_divergence(divergence, layers)
    mean.set_xlabel("mean: observed - stored\n(stored standard deviations)", fontsize=LARGE)
    variance.set_xlabel("variance: ln(observed / stored)\n(0.69: doubled)", fontsize=LARGE)
    divergence.set_xlabel("KL(observed || stored)\n(nats)", fontsize=LARGE)
    counts = [f"{np.count_nonzero(x.is_shifted)} of {len(x.is_shifted)}" for x in layers]
    shifted = divergence.secondary_yaxis("right")
    shifted.set_yticks(range(len(layers)), counts, fontsize=SMALL, color=GREY)
    shifted.tick_params(length=0)
    shifted.spines["right"].set_visible(False)
    shifted.set_ylabel("channels shifted", fontsize=LARGE, color=GREY)
    _add_legend(figure, divergence)
    return figure


def plot_gap(layers: Sequence[Any], notable: float) -> "Figure":
    """Draw how far batch and stored statistics are apart at each layer.

    Args:
        layers: The `layers` of what `train_inference_gap` returned.
        notable: The stored gap from which on a layer is a cause for concern.

    Returns:
        A figure with one panel, in normalised deviations: the distance from the stored statistics
        to the average batch and to the batches, and of the batches from their average. What is NaN
        or Inf, as where statistics are, has no mark, and "not finite" beside its row.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If the report has no layers.
    """
    figure, (panel,) = _panels("plot_gap: `report`", [layer.layer for layer in layers], 1)
    figure.set_figwidth(figure.get_figwidth() + 1.5)  # for the legend
    rows = np.arange(len(layers))
    kinds = {
        "batch noise": ("batch_noise", "|", DARK, 9.0),
        "batches": ("gap", "o", BLUE, 4.5),
        "average batch": ("stored_gap", "D", ORANGE, 4.0),
    }
    values = np.array([[getattr(x, name) for x in layers] for name, *_ in kinds.values()])
    for (label, (_, marker, colour, size)), row in zip(kinds.items(), values, strict=True):
        x = np.where(np.isfinite(row), row, np.nan)
        panel.plot(x, rows, marker, color=colour, markersize=size, markeredgewidth=1.6, label=label)
    panel.axvline(notable, color=GREY, linewidth=0.8, linestyle="--", zorder=0.5)
    across = panel.get_yaxis_transform()
    for row in np.flatnonzero(~np.isfinite(values).all(0)):
        panel.text(1.0, float(row), "not finite", transform=across, fontsize=SMALL, ha="right")
    if np.nanmax(np.where(np.isfinite(values), values, 0.0)) > LINEAR_UP_TO:
        panel.set_xscale("symlog", linthresh=1.0)
    panel.set_xlim(left=0.0)
    panel.set_xlabel(
        "distance from the stored statistics\n(normalised deviations; dashed: notable)",
        fontsize=LARGE,
    )
    _add_legend(figure, panel)
    return figure


def plot_monitor(history: Mapping[str, Sequence[float]], mean_history: Sequence[float]) -> "Figure":
    """Draw internal covariate shift over the epochs.

    Args:
        history: Of a monitor that was given to `fit`.
        mean_history: Likewise.

    Returns:
        A figure with the layers' mean and range, and below it, where there are several layers, a
        map of all layers; epochs that were not measured are blank in the map.

    Raises:
        ImportError: If matplotlib is not installed.
        ValueError: If no epoch has ended yet.
    """
    figure_class = _figure_class()
    from matplotlib.ticker import MaxNLocator

    paths, epochs = list(history), len(mean_history)
    if epochs == 0:
        raise ValueError(
            "plot_monitor: `monitor` must have seen an epoch. Received: none. Give it to "
            "`model.fit(..., callbacks=[monitor])` first."
        )
    shifts = np.array([history[path] for path in paths])
    with_map = len(paths) > 1
    heights = [2.2, max(1.2, ROW * len(paths))] if with_map else [2.2]
    width = 6.0 + CHARACTER * max(map(len, _short(paths)))
    figure: Figure = figure_class(figsize=(width, sum(heights) + 1.0), layout="constrained")
    panels = figure.subplots(
        len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )[:, 0]
    floor = DECADES * np.nanmax(shifts, initial=1e-12)
    shifts = np.where(shifts < floor, floor, shifts)
    name = "mean of the layers" if with_map else paths[0]
    _draw_mean(panels[0], name, np.maximum(mean_history, floor), shifts)
    if with_map:
        _draw_map(figure, panels[1], paths, shifts)
    blank = with_map and not np.isfinite(shifts).all()
    panels[-1].set_xlabel("epoch" + " (pale: not measured)" * blank, fontsize=LARGE)
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[-1].set_xlim(0.5, epochs + 0.5)
    return figure


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as e:
        raise ImportError(
            "plots: needs matplotlib; install it with `pip install 'keras-bn[plots]'`"
        ) from e
    return Figure


def _panels(what: str, paths: Sequence[str], count: int) -> "tuple[Figure, list[Axes]]":
    """Make a figure of panels side by side that have a row for each layer."""
    figure_class = _figure_class()
    if not paths:
        raise ValueError(f"{what} must have layers. Received: none.")
    labels = _short(paths)
    width = 0.6 + CHARACTER * max(map(len, labels)) + 2.5 * count
    height = 1.5 + max(0.5, ROW * len(paths))
    figure = figure_class(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08)
    panels = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for panel in panels:
        _tidy(panel)
        across = panel.get_yaxis_transform()  # x from 0 to 1, y over the rows
        panel.hlines(range(len(paths)), 0, 1, PALE, linewidth=0.6, transform=across)
        panel.spines["left"].set_visible(False)
        panel.tick_params(axis="y", length=0)
        panel.tick_params(axis="x", labeltop=len(paths) >= TALL)
    _name_rows(panels[0], labels)
    return figure, panels


def _tidy(panel: "Axes") -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=SMALL)


def _name_rows(panel: "Axes", labels: Sequence[str]) -> None:
    panel.set_yticks(range(len(labels)), labels, fontsize=SMALL, parse_math=False)
    panel.set_ylim(len(labels) - 0.5, -0.5)
    if len(labels) > 1:
        panel.set_ylabel("layers, as called", fontsize=LARGE)


def _short(paths: Sequence[str]) -> list[str]:
    """Leave out what all paths begin with, and the middle of those that are long still."""
    parts = [path.split("/") for path in paths]
    shortest, same = min(map(len, parts)), 0
    while same < shortest - 1 and len({part[same] for part in parts}) == 1:
        same += 1
    whole = ["/".join(part[same:]) for part in parts]
    labels = [
        label
        if len(label) <= LONGEST_LABEL
        else f"{label[:LABEL_START]}...{label[LABEL_START + 3 - LONGEST_LABEL :]}"
        for label in whole
    ]
    return [
        label if labels.count(label) == 1 else f"{row}: {label}" for row, label in enumerate(labels)
    ]


def _draw_spread(panel: "Axes", values: Sequence[np.ndarray]) -> None:
    """Draw a row's spread over the channels."""
    rows = range(len(values))
    low, lower, middle, upper, high = np.transpose(
        [np.quantile(v, [0.0, 0.1, 0.5, 0.9, 1.0]) for v in values]
    )
    panel.hlines(rows, low, high, LIGHT_BLUE, linewidth=1.2, label="all channels")
    panel.hlines(rows, lower, upper, BLUE, linewidth=4.0, label="10 to 90 % of the channels")
    panel.plot(
        middle,
        rows,
        "o",
        color="white",
        markeredgecolor=DARK,
        markersize=4.5,
        label="median channel",
    )


def _draw_signed(panel: "Axes", values: Sequence[np.ndarray]) -> None:
    panel.axvline(0.0, color=GREY, linewidth=0.8, zorder=0.5)
    _draw_spread(panel, values)
    if max(np.abs(v).max() for v in values) > LINEAR_UP_TO:
        panel.set_xscale("symlog", linthresh=1.0)
    else:
        panel.locator_params("x", nbins=5)


def _draw_divergence(panel: "Axes", layers: Sequence[Any]) -> None:
    floor = DECADES * max(1e-12, *(layer.divergence.max() for layer in layers))
    rows = range(len(layers))
    _draw_spread(panel, [np.maximum(layer.divergence, floor) for layer in layers])
    mean = np.array([layer.mean_divergence for layer in layers])
    chance = np.array([layer.sampling_divergence for layer in layers])
    chance[~np.isfinite(chance)] = np.nan  # of one sample
    style: dict[str, Any] = {"linestyle": "none", "zorder": 3}
    panel.plot(
        np.maximum(chance, floor),
        rows,
        marker="|",
        color=DARK,
        markersize=9,
        markeredgewidth=1.6,
        label="mean by chance alone",
        **style,
    )
    panel.plot(
        np.maximum(mean, floor),
        rows,
        marker="D",
        color=ORANGE,
        markersize=4,
        label="mean of the channels",
        **style,
    )
    panel.set_xscale("log")


def _draw_mean(panel: "Axes", name: str, mean: np.ndarray, shifts: np.ndarray) -> None:
    """Draw the layers' mean and range over the epochs; the lines pass over what is missing."""
    _tidy(panel)
    seen = np.flatnonzero(np.isfinite(mean))
    epochs = seen + 1
    if len(shifts) > 1 and len(seen):
        low, high = np.nanmin(shifts[:, seen], 0), np.nanmax(shifts[:, seen], 0)
        panel.fill_between(epochs, low, high, color=LIGHT_BLUE, alpha=0.6, label="all layers")
        panel.vlines(epochs[:1], low[:1], high[:1], color=LIGHT_BLUE, linewidth=1.2)
    panel.plot(epochs, mean[seen], "o-", color=BLUE, markersize=3.5, linewidth=1.4, label=name)
    panel.set_yscale("log")
    panel.set_ylabel("internal covariate shift\n(nats)", fontsize=LARGE)
    for text in panel.legend(fontsize=SMALL, frameon=False).get_texts():
        text.set_parse_math(False)


def _draw_map(figure: "Figure", panel: "Axes", paths: Sequence[str], shifts: np.ndarray) -> None:
    import matplotlib
    from matplotlib.colors import LogNorm

    edges = np.arange(shifts.shape[1] + 1) + 0.5, np.arange(len(paths) + 1) - 0.5
    colours = matplotlib.colormaps["cividis"].with_extremes(bad=PALE)
    found = shifts[np.isfinite(shifts)]
    norm = LogNorm(found.min(), found.max()) if len(found) else None
    drawn = panel.pcolormesh(*edges, np.ma.masked_invalid(shifts), cmap=colours, norm=norm)
    panel.tick_params(labelsize=SMALL)
    _name_rows(panel, _short(paths))
    if len(found):
        place: dict[str, Any] = {
            "shrink": min(1.0, 12 / len(paths)),
            "anchor": (0.0, 1.0),
            "panchor": False,
        }
        bar = figure.colorbar(drawn, ax=panel, pad=0.02, aspect=15, **place)
        bar.set_label("nats", fontsize=LARGE)
        bar.ax.tick_params(labelsize=SMALL)
        bar.outline.set_visible(False)


def _add_legend(figure: "Figure", panel: "Axes") -> None:
    """Explain the marks once, above all panels."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels),
        fontsize=SMALL,
        frameon=False,
        handlelength=1.4,
        columnspacing=1.6,
    )
