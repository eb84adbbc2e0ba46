"""Draws figures from records with matplotlib, without pyplot and its global state."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from src.core.metric import gain
from src.core.records import ScreeningResult, State, TrialRecord, WeightChange
from src.reports.error_analysis import ErrorAnalysis
from src.reports.search_record import SearchRecord
from src.verdict.records import Verdict

# Colours that colour-blind people can distinguish. Source: Okabe and Ito, Color Universal Design (2008).
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8a8f98"
STATES = {State.COMPLETE: BLUE, State.PRUNED: ORANGE, State.FAIL: RED}
STYLE: Any = {"svg.hashsalt": "trialbook", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
         "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.25,
         "text.parse_math": False, "axes.titlesize": 10}  # fmt: skip
WIDTH = 7.2  # inches
MOST_SLICES = 60  # a figure shows so many; the table has all
MOST_CURVES = 40  # more cannot be distinguished: the best ones are drawn


def to_svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same records."""
    stream = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def to_png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    stream = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def search_figures(record: SearchRecord) -> dict[str, Figure]:
    """Every figure of the search for which there is something to draw, by name."""
    builders: dict[str, Callable[[], Figure]] = {"history": lambda: optimization_history(record)}
    if record.screening:
        builders["screening"] = lambda: screened_models(record.screening, record.metric)
    if record.front:
        builders["front"] = lambda: front_of_objectives(record)
    if record.importances:
        builders["importances"] = lambda: parameter_importances(record)
    if len(record.trials_in_state(State.COMPLETE)) > 1 and record.space:
        builders["parallel"] = lambda: parallel_coordinates(record)
    if any(curve.score for curve in record.curves):
        builders["curves"] = lambda: learning_curves(record)
    if record.stretches:
        builders["timeline"] = lambda: timeline(record)
    if record.changes:
        builders["changes"] = lambda: weight_changes(record.changes)
    return {name: draw() for name, draw in builders.items()}


def error_figures(analysis: ErrorAnalysis) -> dict[str, Figure]:
    """The figures of an error analysis, by name."""
    if analysis.numbers:
        return {"scatter": scatter(analysis), "slices": slice_errors(analysis)}
    drawn = {"calibration": reliability_diagram(analysis), "slices": slice_accuracy(analysis)}
    return {"confusion": confusion_matrix(analysis), **drawn} if analysis.confusion else drawn


@rc_context(STYLE)
def optimization_history(record: SearchRecord) -> Figure:
    """Every trial's score, the best so far, and the baselines."""
    figure, axes = _blank(3.2)
    scored = [t for t in record.trials if t.score is not None]
    for state, colour in STATES.items():
        for inherited in (False, True):
            selected = [t for t in scored if t.state == state and t.is_inherited == inherited]
            if selected:
                axes.scatter(
                    [t.number for t in selected],
                    [t.score for t in selected],
                    edgecolors=colour,
                    facecolors="none" if inherited else colour,
                    label=state.lower() + (", inherited" if inherited else ""),
                    zorder=3,
                )
    best: list[float] = []
    finished = [t for t in scored if t.state == State.COMPLETE and t.is_feasible]
    for trial in finished:
        best.append(max([*best[-1:], trial.score or 0.0], key=lambda score: gain(score, record.direction)))
    if finished:
        upto = [*(t.number for t in finished), record.trials[-1].number]
        axes.step(upto, [*best, best[-1]], where="post", color=BLUE, label="best so far")
    known = {o.score for o in record.baselines.values() if o.score is not None}
    for score in known:
        names = ", ".join(name for name, result in record.baselines.items() if result.score == score)
        axes.axhline(score, color=GREY, linewidth=0.8, linestyle="--")
        axes.annotate(names, (0.995, score), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY,
                      fontsize=8)  # fmt: skip
    axes.set(xlabel="trial", ylabel=f"validation {record.metric}", title="Optimisation history")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if scored:
        axes.legend(frameon=False, loc="best", fontsize=8)
    return figure


@rc_context(STYLE)
def front_of_objectives(record: SearchRecord) -> Figure:
    """The first objective over each of the others: finished trials, those on the front, those out of bounds."""
    first, *others = record.objectives
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, len(others), sharey=True, squeeze=False)[0]
    trials = [t for t in record.trials_in_state(State.COMPLETE) if t.score is not None]
    on_front = {t.number for t in trials if t.number in record.front}
    kinds = (
        ("on the front", [t for t in trials if t.number in on_front], BLUE, "o"),
        ("others", [t for t in trials if t.is_feasible and t.number not in on_front], GREY, "o"),
        ("out of bounds", [t for t in trials if not t.is_feasible], RED, "x"),
    )
    for axes, name in zip(panels, others, strict=True):
        for label, chosen, colour, marker in kinds:
            points = [(t.result.value_of(name), t.score) for t in chosen]
            if points:
                axes.scatter(*zip(*points, strict=True), color=colour, marker=marker, label=label, zorder=3)
        if len(others) == 1:
            line = sorted((t.result.value_of(name) or 0.0, t.score or 0.0) for t in kinds[0][1])
            axes.plot(*zip(*line, strict=True), color=BLUE, linewidth=0.9)
        for trial in trials:
            place = (trial.result.value_of(name), trial.score)
            axes.annotate(str(trial.number), place, textcoords="offset points", xytext=(4, 3), fontsize=7)
        axes.set(xlabel=name)
    panels[0].set(ylabel=f"validation {first}")
    panels[0].legend(frameon=False, fontsize=8)
    figure.suptitle(f"{first} and {' and '.join(others)}", fontsize=10)
    return figure


@rc_context(STYLE)
def parameter_importances(record: SearchRecord) -> Figure:
    """The importance of each searched setting."""
    figure, axes = _blank(0.8 + 0.35 * len(record.importances))
    names = list(record.importances)[::-1]
    bars = axes.barh(names, [record.importances[n] for n in names], color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(title=f"Importance of the settings ({record.importances_by})", xlim=(0, 1.1))
    return figure


@rc_context(STYLE)
def parallel_coordinates(record: SearchRecord) -> Figure:
    """A line per finished trial through its settings, coloured by its score."""
    trials = [t for t in record.trials_in_state(State.COMPLETE) if t.score is not None]
    keys = [key for key in record.space if any(key in t.params for t in trials)]
    figure, axes = _blank(3.4)
    colours = _colours([t.score or 0.0 for t in trials])
    scales = {key: _Scale([t.params[key] for t in trials if key in t.params], record.space[key]) for key in keys}
    scales[record.metric] = _Scale([t.score for t in trials], "")
    for trial, colour in zip(trials, colours, strict=True):
        values = {**trial.params, record.metric: trial.score}
        points = [(i, scale(values[key])) for i, (key, scale) in enumerate(scales.items()) if key in values]
        axes.plot(*zip(*points, strict=True), color=colour, alpha=0.8)
    for i, scale in enumerate(scales.values()):
        axes.axvline(i, color=GREY, linewidth=0.6)
        for height, text in scale.ends():
            axes.annotate(text, (i, height), textcoords="offset points", xytext=(3, 2), fontsize=7)
    axes.set(title="Finished trials", ylim=(-0.05, 1.1), yticks=[])
    axes.set_xticks(range(len(scales)), [key.replace(".", ".\n") for key in scales], fontsize=8)
    axes.grid(visible=False)
    return figure


@rc_context(STYLE)
def learning_curves(record: SearchRecord) -> Figure:
    """Validation score over the examples seen, pruned trials included; below, the training loss."""
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    by_number = {t.number: t for t in record.trials}
    visible = [c for c in record.curves if c.trial in by_number]
    best_first = sorted(visible, key=lambda c: _rank(by_number[c.trial], record.direction))[:MOST_CURVES]
    for curve in best_first:
        trial = by_number[curve.trial]
        best = curve.trial == record.best
        look = {"color": STATES.get(State(trial.state), GREY), "linewidth": 2.2 if best else 0.9,
                "alpha": 1.0 if best else 0.6, "zorder": 3 if best else 2}  # fmt: skip
        if curve.score:
            above.plot(*zip(*curve.score, strict=True), marker="o", markersize=3, **look)
            above.annotate(str(curve.trial), curve.score[-1], textcoords="offset points", xytext=(4, 0), fontsize=7)
        if curve.loss:
            below.plot(*zip(*curve.loss, strict=True), **look)
    above.set(title="Learning curves; a number ends each trial's", ylabel=f"validation {record.metric}")
    below.set(xlabel="training examples seen", ylabel="training loss")
    for state, colour in STATES.items():
        if any(by_number[c.trial].state == state for c in best_first):
            above.plot([], [], color=colour, label=state.lower())
    above.legend(frameon=False, fontsize=8)
    return figure


@rc_context(STYLE)
def timeline(record: SearchRecord) -> Figure:
    """What each worker did, over time."""
    workers = sorted({s.worker for s in record.stretches})
    figure, axes = _blank(0.9 + 0.4 * len(workers))
    start = min(s.began for s in record.stretches)
    for entry in record.stretches:
        colour = STATES.get(State(entry.state), GREY) if entry.what.startswith("trial") else GREEN
        began, lasted = (entry.began - start) / 60, (entry.ended - entry.began) / 60
        axes.barh(workers.index(entry.worker), lasted, left=began, color=colour, edgecolor="white", height=0.7)
        if entry.what.startswith("trial "):
            axes.annotate(entry.what.removeprefix("trial "), (began + lasted / 2, workers.index(entry.worker)),
                          ha="center", va="center", color="white", fontsize=7, clip_on=True)  # fmt: skip
    axes.set(title="Workers: trials by number, baselines in green", xlabel="minutes since the start")
    axes.set_yticks(range(len(workers)), [f"worker {w}" for w in workers])
    return figure


@rc_context(STYLE)
def weight_changes(layers: Sequence[WeightChange]) -> Figure:
    """How far training moved the weights of each layer."""
    figure, axes = _blank(0.9 + 0.28 * len(layers))
    visible = [layer for layer in layers if layer.relative is not None][::-1]
    bars = axes.barh([layer.part for layer in visible], [layer.relative or 0.0 for layer in visible], color=BLUE)
    axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.set(title="What fine-tuning changed", xlabel="norm of the change over the norm before")
    axes.margins(x=0.12)
    return figure


@rc_context(STYLE)
def confusion_matrix(analysis: ErrorAnalysis) -> Figure:
    """True labels against predicted ones."""
    figure, axes = _blank(1.2 + 0.6 * len(analysis.labels), width=1.6 + 0.9 * len(analysis.labels))
    shares = [[n / max(1, sum(row)) for n in row] for row in analysis.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(analysis.confusion):
        for j, n in enumerate(row):
            axes.text(j, i, str(n), ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black")
    ticks = range(len(analysis.labels))
    axes.set_xticks(ticks, analysis.labels, rotation=0 if len(analysis.labels) < 4 else 45)
    axes.set_yticks(ticks, analysis.labels)
    axes.set(xlabel="predicted", ylabel="true", title=f"{analysis.split}, {analysis.examples} examples")
    axes.grid(visible=False)
    return figure


@rc_context(STYLE)
def reliability_diagram(analysis: ErrorAnalysis) -> Figure:
    """Accuracy by predicted probability."""
    figure, axes = _blank(3.4, width=4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    most = max(b.examples for b in analysis.bins)
    middles, heights = [(b.low + b.high) / 2 for b in analysis.bins], [b.examples / most * 0.2 for b in analysis.bins]
    axes.bar(middles, heights, width=0.09, color=GREY, alpha=0.4, label="share of examples")
    axes.plot([b.confidence for b in analysis.bins], [b.accuracy for b in analysis.bins], marker="o", color=BLUE)
    low = min(b.low for b in analysis.bins)
    axes.set(xlabel="probability of the predicted label", ylabel="share that is right", xlim=(low, 1), ylim=(0, 1.02),
             title=f"Reliability on {analysis.split}: error {analysis.calibration_error:.3f}")  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


@rc_context(STYLE)
def slice_accuracy(analysis: ErrorAnalysis) -> Figure:
    """Accuracy by slice, with intervals; the best baseline beside it."""
    rows = [(f"{s.column}: {s.value} ({s.examples})", s.accuracy, s.low, s.high, s.baseline) for s in analysis.slices]
    return _by_slice(rows, analysis.accuracy, f"Accuracy by slice of {analysis.split}", "accuracy")


@rc_context(STYLE)
def scatter(analysis: ErrorAnalysis) -> Figure:
    """Predicted numbers against true ones; larger circles stand for more examples."""
    assert analysis.numbers is not None
    figure, axes = _blank(4.2, width=4.6)
    cells = analysis.numbers.cells
    true, predicted = [cell.true for cell in cells], [cell.predicted for cell in cells]
    most = max((cell.examples for cell in cells), default=1)
    if cells:
        ends = min(true + predicted), max(true + predicted)
        axes.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--")
    sizes = [8 + 250 * cell.examples / most for cell in cells]
    axes.scatter(true, predicted, s=sizes, color=BLUE, alpha=0.5, linewidths=0)
    axes.set(xlabel=f"true {analysis.labels[0]}", ylabel=f"predicted {analysis.labels[0]}",
             title=f"{analysis.split}: {sum(c.examples for c in cells)} of {analysis.examples} examples")  # fmt: skip
    return figure


@rc_context(STYLE)
def slice_errors(analysis: ErrorAnalysis) -> Figure:
    """The mean absolute error by slice, with intervals; the best baseline beside it."""
    assert analysis.numbers is not None
    rows = [
        (f"{s.column}: {s.value} ({s.examples})", s.mae, s.low, s.high, s.baseline) for s in analysis.numbers.slices
    ]
    return _by_slice(rows, analysis.numbers.mae, f"Mean absolute error by slice of {analysis.split}", "mae")


@rc_context(STYLE)
def screened_models(results: Sequence[ScreeningResult], metric: str) -> Figure:
    """Each screened model's score with its interval, against how fast it answers."""
    figure, axes = _blank(3.2)
    for screened in results:
        result, low, high = screened.result, screened.low, screened.high
        if result.score is None or result.ms_per_1000_texts is None or low is None or high is None:
            continue
        colour = BLUE if screened.kept else GREY
        errors = [[result.score - low], [high - result.score]]
        axes.errorbar(result.ms_per_1000_texts, result.score, yerr=errors, fmt="o", color=colour, capsize=3)
        axes.annotate(screened.model, (result.ms_per_1000_texts, result.score), xytext=(5, 3),
                      textcoords="offset points", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.set(title="Screening: searched models in blue", xlabel="ms per 1,000 texts", ylabel=f"validation {metric}")
    return figure


@rc_context(STYLE)
def contender_intervals(verdict: Verdict) -> Figure:
    """Each contender's test score with its interval."""
    visible = [c for c in verdict.contenders if verdict.metric in c.test][::-1]
    figure, axes = _blank(0.9 + 0.32 * len(visible))
    intervals = [c.test[verdict.metric] for c in visible]
    errors = [[i.value - i.low for i in intervals], [i.high - i.value for i in intervals]]
    axes.errorbar([i.value for i in intervals], range(len(visible)), xerr=errors, fmt="none", ecolor=GREY, capsize=3)
    colours = [BLUE if c.name == verdict.winner else GREY for c in visible]
    axes.scatter([i.value for i in intervals], range(len(visible)), color=colours, zorder=3)
    axes.set_yticks(range(len(visible)), [c.name for c in visible])
    axes.set(title=f"{verdict.test_examples} test examples, 95 % intervals", xlabel=f"test {verdict.metric}")
    return figure


class _Scale:
    """Maps values to 0..1: numbers by value (by logarithm if the space is logarithmic), names in order."""

    def __init__(self, values: Sequence[Any], about: str) -> None:
        numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
        self.log = numbers and "log" in about and min(values) > 0
        self.places: Mapping[Any, int] | None = None
        if not numbers:
            self.places = {name: i for i, name in enumerate(sorted({str(v) for v in values}))}
            self.low, self.high = 0.0, float(len(self.places) - 1)
        else:
            self.low, self.high = self._of(min(values)), self._of(max(values))

    def __call__(self, value: Any) -> float:
        place = float(self.places[str(value)]) if self.places is not None else self._of(value)
        return (place - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def ends(self) -> list[tuple[float, str]]:
        """The labels of the axis, with their positions from 0 to 1."""
        if self.places is not None:
            return [(self(name), name) for name in self.places]
        ends = sorted({self.low, self.high})
        return [(self(self._back(end)), f"{self._back(end):.3g}") for end in ends]

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else float(value)

    def _back(self, height: float) -> float:
        return 10**height if self.log else height


def _rank(trial: TrialRecord, direction: str) -> float:
    if trial.score is None:
        return math.inf
    return -gain(trial.score, direction)


def _colours(scores: Sequence[float]) -> list[Any]:
    from matplotlib import colormaps

    low, high = min(scores), max(scores)
    return [colormaps["viridis"](0.9 * (s - low) / (high - low) if high > low else 0.5) for s in scores]


def _by_slice(
    slices: Sequence[tuple[str, float, float, float, float | None]], overall: float, title: str, metric: str
) -> Figure:
    """A metric by slice. `slices`: name, value, the ends of its interval, and the value of the best baseline."""
    rows = slices[:MOST_SLICES][::-1]
    names, values, lows, highs, baselines = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    figure, axes = _blank(0.9 + 0.26 * len(rows))
    places = range(len(rows))
    reach = [
        [value - low for value, low in zip(values, lows, strict=True)],
        [high - value for value, high in zip(values, highs, strict=True)],
    ]
    axes.errorbar(values, places, xerr=reach, fmt="o", color=BLUE, label="fine-tuned", capsize=2)
    if any(baseline is not None for baseline in baselines):
        axes.scatter(baselines, places, marker="x", color=ORANGE, label="best baseline", zorder=3)
    axes.axvline(overall, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_yticks(places, names, fontsize=8)
    axes.set(title=title, xlabel=metric)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _blank(height: float, width: float = WIDTH) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
