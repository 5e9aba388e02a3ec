"""What the figures show: their panels, labels and marks. How they look was judged by eye."""

import math
import re
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure

import keras_bn
from keras_bn.statistics.gap import GapReport
from keras_bn.statistics.layer_gap import LayerGap
from keras_bn.statistics.plots import LONGEST_LABEL
from keras_bn.statistics.population import LayerMovement, StatisticsReport
from keras_bn.statistics.shift import CovariateShiftReport, LayerShift
from tests import networks

LONG = "/".join(["model", "a_stage_with_quite_a_long_name", "its_block", "the_normalisation_of_it"])


def paths(layers):
    return [f"net/block/bn_{i}" for i in range(layers)]


def movements(rng, names, channels=8, scale=1.0):
    layers = tuple(
        LayerMovement(name, rng.normal(0.0, scale, channels), rng.normal(size=channels), 32.0)
        for name in names
    )
    return StatisticsReport(
        layers=layers, _before=(), unchanged={}, batches=1, skipped_batches=0, samples=32
    )


def shifts(rng, names, channels=8, error=0.1):
    layers = []
    for name in names:
        difference, log_ratio = rng.normal(size=(2, channels))
        errors = np.full(channels, error)
        divergence = (np.exp(log_ratio) + difference**2 - 1 - log_ratio) / 2
        shifted = np.arange(channels) < 3
        layers.append(LayerShift(name, difference, errors, log_ratio, errors, divergence, shifted))
    return CovariateShiftReport(
        layers=tuple(layers), unchanged={}, batches=1, skipped_batches=0, samples=32
    )


def monitor(history):
    """Return a monitor that has seen these values: by layer, one for each epoch."""
    seen = keras_bn.CovariateShiftMonitor(np.zeros((1, 1)))
    seen.history = history
    seen.mean_history = np.mean(list(history.values()), 0).tolist()
    seen.epochs = list(range(len(seen.mean_history)))
    return seen


def gaps(*rows):
    layers = tuple(
        LayerGap(name, *row, is_initial=False)
        for name, row in zip(paths(len(rows)), rows, strict=True)
    )
    return GapReport(
        outputs=(),
        loss_with_batch_statistics=None,
        loss_with_stored_statistics=None,
        layers=layers,
        diagnoses=(),
        unchanged={},
        batches=1,
        skipped_batches=0,
        samples=32,
    )


def marks(panel, label):
    """Return where the marks of this label are: x and y."""
    (line,) = (line for line in panel.lines if line.get_label() == label)
    return np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)


def bars(panel, label):
    """Return the ends of the bars of this label, shape (rows, 2)."""
    (drawn,) = (bars for bars in panel.collections if bars.get_label() == label)
    return np.array([segment[:, 0] for segment in drawn.get_segments()])


def row_names(panel):
    return [label.get_text() for label in panel.get_yticklabels()]


@pytest.fixture(autouse=True)
def _draw_for_real(request, monkeypatch):
    """Draw each figure that a test makes, so that what fails only then fails here."""
    made = []
    original = Figure.__init__

    def remember(figure, *args, **kwargs):
        original(figure, *args, **kwargs)
        made.append(figure)

    monkeypatch.setattr(Figure, "__init__", remember)
    yield
    for figure in made:
        figure.canvas.draw()


@pytest.mark.parametrize("layers", [1, 2, 60])
@pytest.mark.parametrize("channels", [1, 8])
def test_movement_has_a_panel_for_each_moment_and_a_row_for_each_layer(rng, layers, channels):
    report = movements(rng, paths(layers), channels)
    figure = report.plot()
    mean, variance = figure.axes
    assert mean.get_xlabel() == "mean: new - old\n(old standard deviations)"
    assert variance.get_xlabel().startswith("variance: ln(new / old)")
    for panel, name in ((mean, "mean_shift"), (variance, "log_variance_ratio")):
        values = [getattr(layer, name) for layer in report.layers]
        x, y = marks(panel, "median channel")
        np.testing.assert_allclose(x, np.median(values, 1))
        np.testing.assert_array_equal(y, np.arange(layers))
        np.testing.assert_allclose(
            bars(panel, "all channels"), np.transpose([np.min(values, 1), np.max(values, 1)])
        )
        np.testing.assert_allclose(
            bars(panel, "10 to 90 % of the channels"), np.quantile(values, [0.1, 0.9], 1).T
        )


def test_first_layer_called_is_on_top(rng):
    panel = movements(rng, paths(3)).plot().axes[0]
    assert row_names(panel) == ["bn_0", "bn_1", "bn_2"]
    assert panel.yaxis_inverted()


@pytest.mark.parametrize(("scale", "expected"), [(1.0, "linear"), (1000.0, "symlog")])
def test_large_movements_are_drawn_on_a_logarithmic_axis(rng, scale, expected):
    figure = movements(rng, paths(2), scale=scale).plot()
    assert [panel.get_xscale() for panel in figure.axes] == [expected, "linear"]


def test_gap_shows_batches_and_their_average_for_each_layer():
    (panel,) = gaps((0.5, 0.1, 0.4), (1.5, 1.2, 0.3)).plot().axes
    for label, expected in (
        ("batches", [0.5, 1.5]),
        ("average batch", [0.1, 1.2]),
        ("batch noise", [0.4, 0.3]),
    ):
        x, y = marks(panel, label)
        np.testing.assert_array_equal(x, expected)
        np.testing.assert_array_equal(y, [0, 1])
    assert panel.get_xscale() == "linear"


def test_gap_that_is_not_finite_is_said_beside_its_row():
    (panel,) = gaps((0.5, 0.1, 0.4), (math.nan, math.inf, 50.0)).plot().axes
    (text,) = panel.texts
    assert (text.get_text(), text.get_position()[1]) == ("not finite", 1)
    assert np.isnan(marks(panel, "average batch")[0][1])
    assert panel.get_xscale() == "symlog"


def test_gap_without_layers_has_nothing_to_draw():
    with pytest.raises(ValueError, match="must have layers"):
        gaps().plot()


@pytest.mark.parametrize("layers", [1, 60])
@pytest.mark.parametrize("channels", [1, 8])
def test_shift_shows_the_divergence_beside_that_by_chance(rng, layers, channels):
    report = shifts(rng, paths(layers), channels)
    mean, variance, divergence = report.plot().axes
    assert mean.get_xlabel() == "mean: observed - stored\n(stored standard deviations)"
    assert variance.get_xlabel().startswith("variance: ln(observed / stored)")
    assert divergence.get_xlabel() == "KL(observed || stored)\n(nats)"
    assert divergence.get_xscale() == "log"
    expected = [layer.mean_divergence for layer in report.layers]
    np.testing.assert_allclose(marks(divergence, "mean of the channels")[0], expected)
    np.testing.assert_allclose(marks(divergence, "mean by chance alone")[0], 0.0075)
    (shifted,) = divergence.child_axes
    assert row_names(shifted) == [f"{min(channels, 3)} of {channels}"] * layers


def test_unknown_error_of_a_single_sample_is_not_drawn(rng):
    divergence = shifts(rng, paths(2), error=np.inf).plot().axes[2]
    assert np.isnan(marks(divergence, "mean by chance alone")[0]).all()


def test_divergence_of_zero_is_drawn_at_the_floor(rng):
    report = shifts(rng, paths(2))
    report.layers[0].divergence[:] = 0.0
    x, _ = marks(report.plot().axes[2], "mean of the channels")
    assert x[0] == 1e-6 * report.layers[1].divergence.max()


def test_monitor_with_several_layers_has_a_map_of_them():
    nan = math.nan
    seen = monitor({"net/a": [0.1, nan, 0.01], "net/b": [0.3, nan, 0.02]})
    mean, layers, colours = seen.plot().axes
    assert mean.get_ylabel() == "internal covariate shift\n(nats)"
    assert mean.get_yscale() == "log"
    x, y = marks(mean, "mean of the layers")
    np.testing.assert_array_equal(x, [1, 3])
    np.testing.assert_allclose(y, [0.2, 0.015])
    (drawn,) = layers.collections
    values = drawn.get_array()
    np.testing.assert_array_equal(values.mask, [[False, True, False]] * 2)
    np.testing.assert_allclose(values[:, [0, 2]], [[0.1, 0.01], [0.3, 0.02]])
    assert row_names(layers) == ["a", "b"]
    assert layers.yaxis_inverted()
    assert layers.get_xlabel() == "epoch (pale: not measured)"
    assert colours.get_ylabel() == "nats"


def test_monitor_with_one_layer_is_a_line():
    (panel,) = monitor({"bn": [0.1, 0.01]}).plot().axes
    np.testing.assert_allclose(marks(panel, "bn"), [[1, 2], [0.1, 0.01]])
    assert panel.get_xlabel() == "epoch"


@pytest.mark.parametrize(
    "history",
    [
        pytest.param({"a": [math.nan]}, id="not measured"),
        pytest.param({"a": [math.nan], "b": [math.nan]}, id="none of them measured"),
        pytest.param({"a": [0.0, 0.0], "b": [0.0, 0.0]}, id="nothing moved"),
        pytest.param({path: [0.1] * 100 for path in paths(60)}, id="many"),
    ],
)
def test_any_history_can_be_drawn(history):
    assert monitor(history).plot().axes[0].get_ylabel()


def test_long_paths_are_cut_and_stay_apart(rng):
    names = [f"{LONG}/{i}/{end}" for end in ("x", "batch_normalization") for i in range(3)]
    labels = row_names(movements(rng, [*names, f"{LONG}/$y$"]).plot().axes[0])
    assert labels == [
        "0/x", "1/x", "2/x", *(f"{i}/batch_normalization" for i in range(3)), "$y$"
    ]  # fmt: skip
    names = [f"{i}{LONG}{'z' * 30}" for i in range(2)] + [f"0{LONG}{i}{'z' * 40}" for i in range(2)]
    labels = row_names(movements(rng, names).plot().axes[0])
    assert len(set(labels)) == 4
    assert max(map(len, labels)) <= LONGEST_LABEL + len("0: ")
    assert labels[3].startswith("3: 0model/a_s...")


def test_reports_and_monitor_draw_themselves(rng):
    model, x = networks.dense(), rng.normal(size=(64, 5)).astype(np.float32)
    report = keras_bn.measure_covariate_shift(model, x, verbose=0)
    moved = keras_bn.estimate_population_statistics(model, x, verbose=0)
    model.compile("sgd", "mse", jit_compile=False)
    monitor = keras_bn.CovariateShiftMonitor(x, budget=None)
    model.fit(x, x[:, :4], epochs=2, verbose=0, callbacks=[monitor])
    found = [len(drawn.plot().axes) for drawn in (report, moved, monitor)]
    assert found == [3, 2, 3]


def test_figures_are_drawn_and_written_without_pyplot(rng, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for figure in (
        movements(rng, paths(2)).plot(),
        shifts(rng, paths(2)).plot(),
        monitor({"a": [0.1], "b": [0.2]}).plot(),
    ):
        figure.savefig(tmp_path / "figure.png")
        assert (tmp_path / "figure.png").stat().st_size > 0


@pytest.mark.parametrize("kind", ["movement", "shift", "monitor"])
def test_missing_matplotlib_is_named_with_what_installs_it(rng, monkeypatch, kind):
    drawn = {
        "movement": movements(rng, paths(1)),
        "shift": shifts(rng, paths(1)),
        "monitor": monitor({"bn": [0.1]}),
    }[kind]
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = "plots: needs matplotlib; install it with `pip install 'keras-bn[plots]'`"
    with pytest.raises(ImportError, match=re.escape(message)):
        drawn.plot()


def test_report_without_layers_is_refused(rng):
    with pytest.raises(ValueError, match=re.escape("`report` must have layers. Received: none.")):
        movements(rng, []).plot()
    with pytest.raises(ValueError, match=re.escape("`report` must have layers. Received: none.")):
        shifts(rng, []).plot()


def test_monitor_that_has_seen_no_epoch_is_refused():
    with pytest.raises(ValueError, match=re.escape("must have seen an epoch. Received: none.")):
        keras_bn.CovariateShiftMonitor(np.zeros((1, 1))).plot()
