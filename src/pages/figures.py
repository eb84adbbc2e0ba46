"""Figures from records, drawn with matplotlib: the one home of plotting. No pyplot, no global state."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from src.pages.analysis import Analysis
from src.pages.history import History
from src.records import Change, State, TrialRecord
from src.verdict.record import Verdict

# Colours that stay apart for colour-blind eyes: Okabe and Ito, Color Universal Design (2008).
BLUE, ORANGE, GREEN, RED, GREY = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#8a8f98"
STATES = {State.COMPLETE: BLUE, State.PRUNED: ORANGE, State.FAIL: RED}
STYLE: Any = {"svg.hashsalt": "trialbook", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
         "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.alpha": 0.25,
         "text.parse_math": False, "axes.titlesize": 10}  # fmt: skip
WIDTH = 7.2  # inches
MOST_SLICES = 60  # a figure has to end somewhere; the table has all of them
MOST_CURVES = 40  # more cannot be told apart: the best ones are drawn


def as_svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same records."""
    stream = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def as_png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return stream.getvalue()


def of_search(history: History) -> dict[str, Figure]:
    """Every figure of the search for which there is something to draw, by name."""
    drawn: dict[str, Callable[[], Figure]] = {"history": lambda: optimisation(history)}
    if history.importances:
        drawn["importances"] = lambda: importances(history)
    if len(history.of_state(State.COMPLETE)) > 1 and history.space:
        drawn["parallel"] = lambda: parallel(history)
    if any(curve.score for curve in history.curves):
        drawn["curves"] = lambda: curves(history)
    if history.stretches:
        drawn["timeline"] = lambda: timeline(history)
    if history.changes:
        drawn["changes"] = lambda: changes(history.changes)
    return {name: draw() for name, draw in drawn.items()}


def of_analysis(found: Analysis) -> dict[str, Figure]:
    return {"confusion": confusion(found), "calibration": calibration(found), "slices": slices(found)}


@rc_context(STYLE)
def optimisation(history: History) -> Figure:
    """Every trial's score, the best so far, and the baselines."""
    figure, axes = _blank(3.2)
    scored = [t for t in history.trials if t.score is not None]
    for state, colour in STATES.items():
        mine = [t for t in scored if t.state == state]
        if mine:
            axes.scatter([t.number for t in mine], [t.score for t in mine], color=colour, label=state.lower(), zorder=3)
    better = min if history.direction == "minimize" else max
    best: list[float] = []
    finished = [t for t in scored if t.state == State.COMPLETE]
    for trial in finished:
        best.append(better([*best[-1:], trial.score or 0.0]))
    if finished:
        upto = [*(t.number for t in finished), history.trials[-1].number]
        axes.step(upto, [*best, best[-1]], where="post", color=BLUE, label="best so far")
    known = {o.score for o in history.baselines.values() if o.score is not None}
    for score in known:
        names = ", ".join(name for name, outcome in history.baselines.items() if outcome.score == score)
        axes.axhline(score, color=GREY, linewidth=0.8, linestyle="--")
        axes.annotate(names, (0.995, score), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY,
                      fontsize=8)  # fmt: skip
    axes.set(xlabel="trial", ylabel=f"validation {history.metric}", title="Optimisation history")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if scored:
        axes.legend(frameon=False, loc="best", fontsize=8)
    return figure


@rc_context(STYLE)
def importances(history: History) -> Figure:
    """How much each setting had to do with the score."""
    figure, axes = _blank(0.8 + 0.35 * len(history.importances))
    names = list(history.importances)[::-1]
    bars = axes.barh(names, [history.importances[n] for n in names], color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(title=f"Importance of the settings ({history.importances_by})", xlim=(0, 1.1))
    return figure


@rc_context(STYLE)
def parallel(history: History) -> Figure:
    """A line per finished trial through its settings, coloured by its score."""
    trials = [t for t in history.of_state(State.COMPLETE) if t.score is not None]
    keys = [key for key in history.space if any(key in t.params for t in trials)]
    figure, axes = _blank(3.4)
    colours = _colours([t.score or 0.0 for t in trials])
    scales = {key: _Scale([t.params[key] for t in trials if key in t.params], history.space[key]) for key in keys}
    scales[history.metric] = _Scale([t.score for t in trials], "")
    for trial, colour in zip(trials, colours, strict=True):
        values = {**trial.params, history.metric: trial.score}
        points = [(i, scale(values[key])) for i, (key, scale) in enumerate(scales.items()) if key in values]
        axes.plot(*zip(*points, strict=True), color=colour, alpha=0.8)
    for i, scale in enumerate(scales.values()):
        axes.axvline(i, color=GREY, linewidth=0.6)
        for place, text in scale.ends():
            axes.annotate(text, (i, place), textcoords="offset points", xytext=(3, 2), fontsize=7)
    axes.set(title="Finished trials", ylim=(-0.05, 1.1), yticks=[])
    axes.set_xticks(range(len(scales)), [key.replace(".", ".\n") for key in scales], fontsize=8)
    axes.grid(visible=False)
    return figure


@rc_context(STYLE)
def curves(history: History) -> Figure:
    """Validation score over the examples seen, pruned trials included; below, the training loss."""
    figure = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    by_number = {t.number: t for t in history.trials}
    shown = [c for c in history.curves if c.trial in by_number]
    best_first = sorted(shown, key=lambda c: _rank(by_number[c.trial], history.direction))[:MOST_CURVES]
    for curve in best_first:
        trial = by_number[curve.trial]
        best = curve.trial == history.best
        look = {"color": STATES.get(State(trial.state), GREY), "linewidth": 2.2 if best else 0.9,
                "alpha": 1.0 if best else 0.6, "zorder": 3 if best else 2}  # fmt: skip
        if curve.score:
            above.plot(*zip(*curve.score, strict=True), marker="o", markersize=3, **look)
            above.annotate(str(curve.trial), curve.score[-1], textcoords="offset points", xytext=(4, 0), fontsize=7)
        if curve.loss:
            below.plot(*zip(*curve.loss, strict=True), **look)
    above.set(title="Learning curves; a number ends each trial's", ylabel=f"validation {history.metric}")
    below.set(xlabel="training examples seen", ylabel="training loss")
    for state, colour in STATES.items():
        if any(by_number[c.trial].state == state for c in best_first):
            above.plot([], [], color=colour, label=state.lower())
    above.legend(frameon=False, fontsize=8)
    return figure


@rc_context(STYLE)
def timeline(history: History) -> Figure:
    """What every worker was busy with."""
    workers = sorted({s.worker for s in history.stretches})
    figure, axes = _blank(0.9 + 0.4 * len(workers))
    start = min(s.began for s in history.stretches)
    for stretch in history.stretches:
        colour = STATES.get(State(stretch.state), GREY) if stretch.what.startswith("trial") else GREEN
        began, lasted = (stretch.began - start) / 60, (stretch.ended - stretch.began) / 60
        axes.barh(workers.index(stretch.worker), lasted, left=began, color=colour, edgecolor="white", height=0.7)
        if stretch.what.startswith("trial "):
            axes.annotate(stretch.what.removeprefix("trial "), (began + lasted / 2, workers.index(stretch.worker)),
                          ha="center", va="center", color="white", fontsize=7, clip_on=True)  # fmt: skip
    axes.set(title="Workers: trials by number, baselines in green", xlabel="minutes since the start")
    axes.set_yticks(range(len(workers)), [f"worker {w}" for w in workers])
    return figure


@rc_context(STYLE)
def changes(layers: Sequence[Change]) -> Figure:
    """How far every layer moved."""
    figure, axes = _blank(0.9 + 0.28 * len(layers))
    shown = [layer for layer in layers if layer.relative is not None][::-1]
    bars = axes.barh([layer.part for layer in shown], [layer.relative or 0.0 for layer in shown], color=BLUE)
    axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.set(title="What fine-tuning changed", xlabel="norm of the change over the norm before")
    axes.margins(x=0.12)
    return figure


@rc_context(STYLE)
def confusion(found: Analysis) -> Figure:
    figure, axes = _blank(1.2 + 0.6 * len(found.labels), width=1.6 + 0.9 * len(found.labels))
    shares = [[n / max(1, sum(row)) for n in row] for row in found.confusion]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(found.confusion):
        for j, n in enumerate(row):
            axes.text(j, i, str(n), ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black")
    ticks = range(len(found.labels))
    axes.set_xticks(ticks, found.labels, rotation=0 if len(found.labels) < 4 else 45)
    axes.set_yticks(ticks, found.labels)
    axes.set(xlabel="predicted", ylabel="true", title=f"{found.split}, {found.examples} examples")
    axes.grid(visible=False)
    return figure


@rc_context(STYLE)
def calibration(found: Analysis) -> Figure:
    """How often answers of a given confidence are right."""
    figure, axes = _blank(3.4, width=4.2)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle="--")
    most = max(b.examples for b in found.bins)
    axes.bar([(b.low + b.high) / 2 for b in found.bins], [b.examples / most * 0.2 for b in found.bins], width=0.09,
             color=GREY, alpha=0.4, label="share of examples")  # fmt: skip
    axes.plot([b.confidence for b in found.bins], [b.accuracy for b in found.bins], marker="o", color=BLUE)
    low = min(b.low for b in found.bins)
    axes.set(xlabel="chance of the likeliest label", ylabel="share that is right", xlim=(low, 1), ylim=(0, 1.02),
             title=f"Reliability on {found.split}: error {found.calibration_error:.3f}")  # fmt: skip
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


@rc_context(STYLE)
def slices(found: Analysis) -> Figure:
    """Accuracy by slice, with intervals; the best baseline beside it."""
    rows = found.slices[:MOST_SLICES][::-1]
    figure, axes = _blank(0.9 + 0.26 * len(rows))
    places = range(len(rows))
    errors = [[s.accuracy - s.low for s in rows], [s.high - s.accuracy for s in rows]]
    axes.errorbar([s.accuracy for s in rows], places, xerr=errors, fmt="o", color=BLUE, label="fine-tuned", capsize=2)
    if any(s.baseline is not None for s in rows):
        axes.scatter([s.baseline for s in rows], places, marker="x", color=ORANGE, label="best baseline", zorder=3)
    axes.axvline(found.accuracy, color=GREY, linewidth=0.8, linestyle="--")
    axes.set_yticks(places, [f"{s.column}: {s.value} ({s.examples})" for s in rows], fontsize=8)
    axes.set(title=f"Accuracy by slice of {found.split}", xlabel="accuracy")
    axes.legend(frameon=False, fontsize=8)
    return figure


@rc_context(STYLE)
def contenders(verdict: Verdict) -> Figure:
    """Each contender's test score with its interval."""
    shown = [c for c in verdict.contenders if verdict.metric in c.test][::-1]
    figure, axes = _blank(0.9 + 0.32 * len(shown))
    found = [c.test[verdict.metric] for c in shown]
    errors = [[i.value - i.low for i in found], [i.high - i.value for i in found]]
    axes.errorbar([i.value for i in found], range(len(shown)), xerr=errors, fmt="none", ecolor=GREY, capsize=3)
    colours = [BLUE if c.name == verdict.winner else GREY for c in shown]
    axes.scatter([i.value for i in found], range(len(shown)), color=colours, zorder=3)
    axes.set_yticks(range(len(shown)), [c.name for c in shown])
    axes.set(title=f"{verdict.test_examples} test examples, 95 % intervals", xlabel=f"test {verdict.metric}")
    return figure


class _Scale:
    """Places values between 0 and 1: numbers by size (their logarithm where the space has one), names in order."""

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
        found = float(self.places[str(value)]) if self.places is not None else self._of(value)
        return (found - self.low) / (self.high - self.low) if self.high > self.low else 0.5

    def ends(self) -> list[tuple[float, str]]:
        """What stands at which height of the axis."""
        if self.places is not None:
            return [(self(name), name) for name in self.places]
        ends = sorted({self.low, self.high})
        return [(self(self._back(end)), f"{self._back(end):.3g}") for end in ends]

    def _of(self, value: float) -> float:
        return math.log10(value) if self.log else float(value)

    def _back(self, place: float) -> float:
        return 10**place if self.log else place


def _rank(trial: TrialRecord, direction: str) -> float:
    if trial.score is None:
        return math.inf
    return trial.score if direction == "minimize" else -trial.score


def _colours(scores: Sequence[float]) -> list[Any]:
    from matplotlib import colormaps

    low, high = min(scores), max(scores)
    return [colormaps["viridis"](0.9 * (s - low) / (high - low) if high > low else 0.5) for s in scores]


def _blank(height: float, width: float = WIDTH) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
