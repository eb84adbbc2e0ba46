"""README.md and figures of this folder, from the records alone: `python -m benchmarks.pages`."""

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks import adapters as adapter_trainings
from benchmarks import common, quality, scale, search
from benchmarks import portfolio as portfolios

README, FIGURES = common.HERE / "README.md", common.HERE / "figures"
PICTURES = common.HERE.parent / "docs" / "pictures"
SCALE = common.HERE.parent / "docs" / "scale.md"
STYLE = {"svg.hashsalt": "trialbook", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
NAMES = {
    "trialbook": "Trialbook",
    "hyperparameter_search": "Trainer.hyperparameter_search",
    "random_search": "random search",
    "hydra_optuna": "hydra-optuna-sweeper",
    "ray_asha": "Ray Tune, ASHA",
    "bertuner_search": "bertuner",
    "autogluon": "AutoGluon MultiModal 1.6",
}
MOST_EPOCHS = 4  # of the space that the peers share
GOAL = 0.2  # of the time that hyperparameter_search itself takes to its target
HEAD = """# Benchmarks

Everything here is made from the files in `records/` by `python -m benchmarks.pages`; nothing is typed by hand. Times
compare within one machine and one run only. To repeat one: install as the README says, then the command above its
table, with SST-2's parquet files in a folder.
"""


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        README.write_text(page(draw=True))
    SCALE.write_text(scale.page(_read("coordination"), _table))


def page(draw: bool = False) -> str:
    """The whole text; with `draw`, the figures are written too."""
    parts = [HEAD]
    for make in (
        delivered,
        front,
        portfolio,
        adapters,
        searches,
        schedulers,
        trial,
        step,
        workers,
        packing,
        memory,
        view,
        coordination,
    ):
        parts += make(draw)
    return "\n".join(parts).rstrip() + "\n"


# --- a front ---


def front(draw: bool) -> Iterable[str]:
    """The front of accuracy and speed of two models."""
    record = _read("front")
    if record is None:
        return
    trials = sorted(record["trials"], key=lambda t: t["ms_per_1000_texts"])
    if draw:
        _draw_front(trials)
    yield "## A front of accuracy and speed\n"
    yield (
        "One study of MiniLM and all-mpnet-base-v2 on SST-2, 1,000 training and 872 validation sentences, with"
        " `study.metric=[accuracy,ms_per_1000_texts]`."
        " A sentence is cut after 8 to 64 tokens. Scores are those of one seed.\n"
    )
    yield from _circumstances(record)
    rows = [
        [str(t["number"]), _model(t), str(t["params"]["model.max_tokens"]), f"{t['accuracy']:.4f}",
         f"{t['ms_per_1000_texts']:.0f}"]
        for t in trials if t["on_front"]
    ]  # fmt: skip
    yield _table(["trial on the front", "model", "tokens", "accuracy", "ms for 1,000 texts"], rows)
    yield f"The other {len(trials) - len(rows)} of {len(trials)} trials are behind it.\n"
    yield "![Accuracy and speed of the trials](../docs/pictures/front.svg)\n"


def _model(trial: dict[str, Any]) -> str:
    return str(trial["params"]["model"]).removesuffix("_local")


def _draw_front(trials: Sequence[dict[str, Any]]) -> None:
    figure, axes = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
    for model, colour in (("minilm", "#0072b2"), ("mpnet", "#d55e00")):
        for on_front, filled in ((True, colour), (False, "none")):
            chosen = [t for t in trials if _model(t) == model and t["on_front"] == on_front]
            points = [(t["ms_per_1000_texts"], t["accuracy"]) for t in chosen]
            label = f"{model}{', on the front' if on_front else ''}"
            if points:
                axes.scatter(*zip(*points, strict=True), edgecolors=colour, facecolors=filled, label=label, zorder=3)
            for trial, place in zip(chosen, points, strict=True):
                tokens = str(trial["params"]["model.max_tokens"])
                axes.annotate(tokens, place, textcoords="offset points", xytext=(4, 3), fontsize=7)
    line = [(t["ms_per_1000_texts"], t["accuracy"]) for t in trials if t["on_front"]]
    axes.step(*zip(*line, strict=True), where="post", color="#8a8f98", linewidth=0.9)
    axes.set(xscale="log", xlabel="milliseconds for 1,000 texts, one thread", ylabel="validation accuracy")
    axes.set_xticks([n * 1_000 for n in (2, 3, 5, 10, 20, 30, 50)])
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_minor_formatter("")
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(PICTURES / "front.svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)


# --- adapters ---


def adapters(_draw: bool) -> Iterable[str]:
    """Adapters beside full fine-tuning."""
    record = _read("adapters")
    if record is None:
        return
    yield "## Adapters beside full fine-tuning\n"
    about = adapter_trainings.__doc__ or ""
    yield about[about.index("SST-2, ") :]
    yield from _circumstances(record)
    yield adapter_table(record)
    yield (
        "Means over the seeds. A checkpoint has weights and the optimizer's state; kept are the best weights of a"
        " training. Memory is the most that the process had in use, libraries included.\n"
    )


def adapter_table(record: dict[str, Any]) -> str:
    """A row for each adapter and learning rate."""
    kinds: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for training in record["trainings"]:
        adapter = next(word for word in training["words"] if word.startswith("adapter="))
        kinds.setdefault((adapter, training["learning_rate"]), []).append(training)
    rows = []
    for (adapter, rate), each in kinds.items():
        mean = {key: statistics.mean(t[key] for t in each) for key in each[0] if key != "words"}
        scores = ", ".join(f"{t['accuracy']:.4f}" for t in each)
        rows.append([
            f"`{adapter}`", f"{rate:g}", scores, f"{mean['seconds']:.0f}", f"{mean['peak_memory_gigabytes']:.1f}",
            f"{mean['checkpoint_megabytes']:.0f}", f"{mean['kept_megabytes']:.0f}", f"{mean['merged_megabytes']:.0f}",
        ])  # fmt: skip
    heads = [
        "", "learning rate", "accuracy of each seed", "seconds", "GB of memory", "MB of a checkpoint", "MB kept",
        "MB delivered",
    ]  # fmt: skip
    return _table(heads, rows)


# --- a portfolio ---


def portfolio(_draw: bool) -> Iterable[str]:
    """Whether settings that were good on other sets are a better start than random ones."""
    records = portfolios.records()
    if not records:
        return
    yield "## A portfolio of settings\n"
    about = portfolios.__doc__ or ""
    yield about[about.index("The settings are") :]
    yield from _circumstances(next(iter(records.values())))
    yield from portfolios.summary()
    yield ""


# --- what is delivered ---


def delivered(_draw: bool) -> Iterable[str]:
    """The accuracy of what each tool delivers, on test texts that it never saw."""
    known = quality.records()
    ours = [record for record in known if record["peer"] == "trialbook"]
    if not ours:
        return
    yield "## What each tool delivers\n"
    about = quality.__doc__ or ""
    yield about[about.index("`--data`") : about.index("all-mpnet-base-v2 comes in")]
    yield from _circumstances(ours[-1])
    names = list(quality.mean_leads(known))
    rows = []
    for record in ours:
        others = {name: accuracy for name, accuracy, _, _ in quality.beside(record, known)}
        cells = [f"{others[name]:.4f}" if name in others else "" for name in names]
        set_name = f"{record['set']}, draw {record['draw']}"
        rows.append([set_name, str(len(record["right"])), f"{record['accuracy']:.4f}", *cells])
    leads = [_lead(*quality.mean_leads(known)[name]) for name in names]
    rows.append(["Trialbook's lead, the mean over sets", "", "", *leads])
    yield _table(["accuracy on", "test texts", "Trialbook", *(NAMES.get(name, name) for name in names)], rows)
    yield (
        "Leads in points with 95 % intervals: over the default recipe over texts and seeds, over a peer over texts. The"
        " goals are\n1.5 points over the default recipe trained once, and to be ahead of every peer. Records were made"
        " while other work\nran on the machine, so their times are not compared.\n"
    )


def _lead(mean: float, low: float, high: float, n: int) -> str:
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}], {n} sets"


# --- searches ---


def searches(draw: bool) -> Iterable[str]:
    """Anytime curves, and the time to what each peer ends at."""
    records = [json.loads(file.read_text()) for file in sorted(search.FOLDER.glob("*-*.json"))]
    if not records:
        return
    yield "## How fast a search gets there\n"
    about = search.__doc__ or ""
    yield about[about.index("Every peer") :]
    ours = {r["seed"]: r for r in records if r["peer"] == "trialbook"}
    first = next(iter(ours.values()), records[0])
    yield from _circumstances(first)
    rescored = _rescored()
    yield from _rows(records, ours, rescored)
    yield (
        "Medians over seeds. The target, for each peer and seed: what its final winner reaches trained anew, less"
        " half a standard\nerror. *There itself*: its first best-so-far that, trained anew, reaches it; *Trialbook"
        " there*: the first of\nTrialbook's with the same seed.\n"
    )
    yield from _goal(records, ours, rescored)
    for record in records:
        if record["machine"] != first["machine"]:
            machine = f"{record['machine']['processor']}, {record['machine']['cores']} cores"
            ours_there = record.get("beside", {}).get("seconds")
            beside = f"; Trialbook's whole search there: {ours_there:.0f} s" if ours_there else ""
            yield f"{NAMES[record['peer']]}, seed {record['seed']}: {machine}{beside}.\n"
    if draw:
        _draw("anytime", _anytime, records)
    yield "![Best validation accuracy against wall-clock](figures/anytime.svg)\n"
    if messages := list(_told(records)):
        yield "### If the peers knew the default recipe\n"
        yield (
            "Each peer trained Trialbook's default recipe (fixed beforehand, on other data) as its only trial, with its"
            " own Trainer;\nhere that trial goes first and its own search follows. bertuner cannot take it: its epochs"
            " are its own.\n"
        )
        yield from _rows([*messages, *ours.values()], ours, rescored)


def _rows(
    records: Sequence[dict[str, Any]], ours: dict[int, dict[str, Any]], rescored: dict[str, tuple[float, float]]
) -> Iterable[str]:
    by_peer = {peer: [r for r in records if r["peer"] == peer] for peer in search.PEERS}
    yield _table(
        ["", "seeds", "best on validation", "... after", "whole search", "fresh seeds, unseen sentences",
         "there itself after", "Trialbook there after", "share of its time"],
        [[NAMES[peer], *_row(peer, claimed, ours, rescored)] for peer, claimed in by_peer.items() if claimed],
    )  # fmt: skip


def _told(records: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The peers' searches with the recipe's trial in front, where that was trained on the same machine."""
    for record in records:
        file = search.record_of(record["peer"], record["seed"], alone=True)
        alone = json.loads(file.read_text()) if file.exists() else None
        if alone and alone["machine"] == record["machine"]:
            first = alone["trial"]
            late = first["elapsed"]
            after = [{**t, "elapsed": t["elapsed"] + late} for t in record["trials"]]
            yield {**record, "trials": [first, *after], "seconds": record["seconds"] + late}


def _row(
    peer: str,
    claimed: Sequence[dict[str, Any]],
    ours: dict[int, dict[str, Any]],
    rescored: dict[str, tuple[float, float]],
) -> list[str]:
    best = [search.incumbents(r["trials"])[-1] for r in claimed]
    cells = [
        str(len(claimed)),
        f"{statistics.median(b['value'] for b in best):.4f}",
        f"{statistics.median(b['elapsed'] for b in best):.0f} s",
        f"{statistics.median(r['seconds'] for r in claimed):.0f} s",
    ]
    result = [rescored.get(search.key_of(b["settings"])) for b in best]
    known = [f for f in result if f]
    cells.append(f"{statistics.median(m for m, _ in known):.4f}" if known else "")
    if peer == "trialbook":
        return [*cells, "", "", ""]
    races = _races(claimed, ours, rescored)
    if not races:
        return [*cells, "", "", ""]
    theirs, when, share = (
        statistics.median(values) for values in zip(*((r.theirs, r.ours, r.share) for r in races), strict=True)
    )
    reached = sum(race.reached for race in races)
    missed = "" if reached == len(races) else f" ({reached} of {len(races)} seeds)"
    if share == np.inf:
        return [*cells, f"{theirs:.0f} s", f"not reached{missed}", ""]
    return [*cells, f"{theirs:.0f} s", f"{when:.0f} s{missed}", f"{share:.2f}"]


@dataclass(frozen=True)
class _Race:
    """To a target: seconds that a peer took, and Trialbook, which may not have got there (infinity)."""

    seed: int
    target: float
    winner: tuple[float, float]  # the peer's, trained anew, and its standard error
    theirs: float
    ours: float
    best: tuple[float, float]  # Trialbook's own winner

    @property
    def reached(self) -> bool:
        return self.ours < np.inf

    @property
    def share(self) -> float:
        return self.ours / self.theirs


def _races(
    records: Iterable[dict[str, Any]], ours: dict[int, dict[str, Any]], rescored: dict[str, tuple[float, float]]
) -> list[_Race]:
    """Those of which both sides have been trained anew."""
    return [race for record in records if (race := _race(record, ours, rescored))]


def _race(
    record: dict[str, Any], ours: dict[int, dict[str, Any]], rescored: dict[str, tuple[float, float]]
) -> _Race | None:
    """None where either of them has not been trained anew yet."""
    beside = record.get("beside", ours.get(record["seed"]))
    if beside is None:
        return None
    last = [search.incumbents(r["trials"])[-1]["settings"] for r in (record, beside)]
    winner, best = (rescored.get(search.key_of(settings)) for settings in last)
    if winner is None or best is None:
        return None
    target = winner[0] - winner[1] / 2
    theirs = _reached(record, target, rescored) or record["seconds"]
    when = _reached(beside, target, rescored)
    return _Race(record["seed"], target, winner, theirs, np.inf if when is None else when, best)


def _goal(
    records: Sequence[dict[str, Any]], ours: dict[int, dict[str, Any]], rescored: dict[str, tuple[float, float]]
) -> Iterable[str]:
    """How far it is from a fifth of hyperparameter_search's time, and why."""
    races = _races((r for r in records if r["peer"] == "hyperparameter_search"), ours, rescored)
    if not races:
        return
    met = sum(race.share <= GOAL for race in races)
    shares = ", ".join(f"{race.share:.2f}" if race.reached else "not reached" for race in races)
    yield (
        f"The goal is a fifth of `Trainer.hyperparameter_search`'s own time. It is met on {met} of {len(races)} seeds:"
        f" {shares}."
    )
    for race in (race for race in races if not race.reached):
        yield (
            f"On seed {race.seed} the peer's winner, trained anew, reaches {race.winner[0]:.4f} ± {race.winner[1]:.4f}"
            f" (the target: {race.target:.4f}), Trialbook's {race.best[0]:.4f} ± {race.best[1]:.4f}."
        )
    for peer in search.PEERS[2:]:
        claimed = [r for r in records if r["peer"] == peer]
        others = _races(claimed, ours, rescored)
        if missed := sum(not race.reached for race in others):
            epochs = max(t["settings"]["num_train_epochs"] for r in claimed for t in r["trials"])
            own = f" It trains {epochs} epochs, more than the space of the others holds." * (epochs > MOST_EPOCHS)
            yield f"The target of {NAMES[peer]} is not reached on {missed} of {len(others)} seeds.{own}"
    searches = [*ours.values(), *(r["beside"] for r in records if "beside" in r)]
    recipes = sum(search.incumbents(r["trials"])[-1]["settings"] == search.RECIPE for r in searches)
    yield (
        f"In {recipes} of Trialbook's {len(searches)} searches none of the other {search.TRIALS - 1} trials did better"
        " on validation than the\ndefault recipe, which comes first: the time to it is one start and one training on"
        " all cores, and what a search after it\nadds is small on a thousand sentences. Where a peer finds better"
        " settings than the recipe, that is the time lost; where\nit knows the recipe too (below), what is left of the"
        " lead is what a trial costs.\n"
    )


def _reached(record: dict[str, Any], target: float, rescored: dict[str, tuple[float, float]]) -> float | None:
    """Seconds until this search's best so far, trained anew, was as good as `target`."""
    for trial in search.incumbents(record["trials"]):
        again = rescored.get(search.key_of(trial["settings"]))
        if again and again[0] >= target:
            return float(trial["elapsed"])
    return None


def _rescored() -> dict[str, tuple[float, float]]:
    """Settings' key -> mean accuracy over fresh seeds, and its standard error over seeds and sentences."""
    answers: dict[str, list[list[int]]] = {}
    for line in common.lines(search.RESCORED):
        answers.setdefault(line["key"], []).append(line["correct"])
    result = {}
    for key, rows in answers.items():
        table = np.array(rows, dtype=float)
        over_sentences = table.mean(axis=0).std(ddof=1) / np.sqrt(table.shape[1])
        over_seeds = table.mean(axis=1).std(ddof=1) / np.sqrt(len(table)) if len(table) > 1 else 0.0
        result[key] = float(table.mean()), float(np.hypot(over_sentences, over_seeds))
    return result


def _anytime(axes: Any, records: Sequence[dict[str, Any]]) -> None:
    for color, peer in zip(plt.cm.tab10.colors, search.PEERS, strict=False):
        for number, record in enumerate(r for r in records if r["peer"] == peer):
            steps = search.incumbents(record["trials"])
            times = [*(s["elapsed"] for s in steps), record["seconds"]]
            values = [*(s["value"] for s in steps), steps[-1]["value"]]
            width = 2.0 if peer == "trialbook" else 1.0
            label = NAMES[peer] if number == 0 else None
            axes.step(times, values, where="post", color=color, linewidth=width, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("seconds since the command")
    axes.set_ylabel("best validation accuracy so far")
    axes.legend(frameon=False, fontsize=8)


# --- schedulers ---


def schedulers(draw: bool) -> Iterable[str]:
    record = _read("schedulers")
    if record is None:
        return
    yield "## Samplers, pruners and rungs\n"
    yield (
        f"Studies replayed from {record['configurations']} recorded trainings of MiniLM on the starter reviews,"
        f" {record['seeds']} seeds each.\nRegret: the best smoothed accuracy of the table ({record['ceiling']:.4f}; the"
        f" default recipe {record['default_recipe']:.4f}) less that of the\nbest trial so far, in points of accuracy,"
        " by budget (in trainings of the default recipe). Standard errors are below\n"
        f"{100 * max(e for v in record['variants'] for e in v['error'][2:]):.1f} points from the third column on.\n"
    )
    yield from _circumstances(record)
    rows = [
        [v["sampler"] + ", recipe first" * v["recipe"], v["pruner"], "/".join(f"{100 * r:g}" for r in v["rungs"]),
         str(v["rung_examples"] or "all"), *(f"{100 * m:.2f}" for m in v["mean"])]
        for v in record["variants"]
    ]  # fmt: skip
    yield _table(["sampler", "pruner", "rungs, %", "texts", *(f"{b:g}" for b in record["budgets"])], rows)
    if draw:
        _draw("schedulers", _regret, record)
    yield "![Regret against budget](figures/schedulers.svg)\n"
    yield from _default_scheduler(record)


def _default_scheduler(record: dict[str, Any]) -> Iterable[str]:
    """Why the defaults are what they are: as studies start, with the recipe first and rungs judged on 200 texts."""
    started = [v for v in record["variants"] if v["recipe"] and v["rung_examples"] == 200]
    if not started:
        return
    late = [i for i, budget in enumerate(record["budgets"]) if budget >= 3]
    means = {f"{v['sampler']} with {v['pruner']}": np.mean([v["mean"][i] for i in late]) for v in started}
    error = max(v["error"][i] for v in started for i in late)
    least, most = min(means, key=means.get), max(means, key=means.get)  # type: ignore[arg-type]
    ended = {p: np.mean([v["mean"][2] for v in started if v["pruner"] == p]) for p in ("median", "asha")}
    yield (
        f"A study starts with the default recipe wherever its space has it. From there, over budgets of 3 and more, "
        f"{least} loses\n{100 * means[least]:.2f} points on average and {most} {100 * means[most]:.2f}, with standard "
        f"errors of up to {100 * error:.2f}: which sampler and pruner hardly matters.\nBefore that the pruner does: at "
        f"a budget of 2, asha, whose trials pause, is {100 * ended['asha']:.0f} points off on average and median "
        f"{100 * ended['median']:.0f}.\nSo the default is tpe, which takes conditional and categorical settings too, "
        "with median, which asks for no room on disk.\nWhere the recipe lies outside the space, `sampler=qmc` is the "
        "better start, as the table's first rows say.\n"
    )


def _regret(axes: Any, record: dict[str, Any]) -> None:
    chosen = [
        v
        for v in record["variants"]
        if v["rungs"] == [0.25, 0.5, 1.0] and v["rung_examples"] is None and not v["recipe"]
    ]
    shown = [v for v in chosen if v["sampler"] == "tpe" or v["pruner"] == "none"]
    for color, variant in zip(plt.cm.tab10.colors, shown, strict=False):
        label = f"{variant['sampler']}, {variant['pruner']}"
        axes.plot(record["budgets"], 100 * np.array(variant["mean"]), color=color, marker=".", label=label)
    axes.set_xlabel("budget, in trainings of the default recipe")
    axes.set_ylabel("regret, points of accuracy")
    axes.legend(frameon=False, fontsize=8)


# --- one trial ---


def trial(draw: bool) -> Iterable[str]:
    del draw
    record = _read("trial")
    if record is None:
        return
    yield "## Inside a trial\n"
    yield (
        "MiniLM, 1,000 SST-2 sentences, two epochs, three evaluations of 872 sentences; the model's loading counts. "
        "Bare PyTorch has torch's own dropout and attention (see *A step on a processor*).\n"
    )
    yield from _circumstances(record)
    medians = {
        kind: statistics.median(s for each in record["rounds"] for s in each[kind]["seconds"])
        for kind in ("bare", "trialbook", "notebook")
    }
    tokens = record["rounds"][0]["bare"]["tokens"]
    bare = "bare PyTorch, same batches, precision, evaluations and saves"
    yield _table(
        ["", "seconds a training", "training tokens per second", "speed, by round"],
        [
            [bare, f"{medians['bare']:.1f}", f"{tokens / medians['bare']:.0f}", "1"],
            ["Trialbook, whole trial", f"{medians['trialbook']:.1f}", f"{tokens / medians['trialbook']:.0f}",
             ", ".join(f"{r:.3f}" for r in record["over_bare"]) + " of bare"],
            ["Trainer as in a notebook", f"{medians['notebook']:.1f}", f"{tokens / medians['notebook']:.0f}",
             "Trialbook is " + ", ".join(f"{r:.2f}" for r in record["over_notebook"]) + " times as fast"],
        ],
    )  # fmt: skip
    starts = ", ".join(f"{s:.1f}" for s in record["to_the_first_step"])
    yield f"From the command to the first training step, stores and caches there, two workers: {starts} s.\n"
    parts = record["parts"]["parts"]
    total = sum(parts.values())
    rows = [[name, f"{100 * s / total:.1f} %"] for name, s in sorted(parts.items(), key=lambda p: -p[1])]
    yield "Where a trial's time goes (evaluations' forward passes count as forward):\n"
    yield _table(["part", "share"], rows)


def step(draw: bool) -> Iterable[str]:
    del draw
    record = _read("step")
    if record is None:
        return
    yield "## A step on a processor\n"
    yield (
        f"MiniLM in {record['precision']}, batches of 16. Dropout's masks and attention with dropout are Trialbook's "
        "own. What is learned is the same, but for the masks drawn.\n"
    )
    yield from _circumstances(record)
    yield _table(
        [
            "texts",
            "steps",
            "as transformers builds it",
            "own dropout and attention",
        ],
        [
            [
                f"{each['tokens'] or round(record['mean_tokens'])} tokens{'' if each['tokens'] else ' on average'}",
                str(each["steps"]),
                f"{1000 * each['seconds']['plain']:.0f} ms",
                f"{each['of_plain']['dropout']:.2f} of it",
            ]
            for each in record["lengths"]
        ],
    )


def workers(draw: bool) -> Iterable[str]:
    """A record for every machine: what a second worker brings depends on it, and on the precision it trains in."""
    del draw
    records = [json.loads(file.read_text()) for file in sorted(common.RECORDS.glob("workers*.json"))]
    if not records:
        return
    yield "## Workers\n"
    yield "Studies of trials of one length; each worker has its share of the processors as threads.\n"
    for record in records:
        yield from _circumstances(record)
        rows = [
            [count, str(record["threads"][count]),
             f"{statistics.median(r[count] for r in record['trials_per_hour']):.0f}", f"{ratio:.2f}"]
            for count, ratio in record["over_one"].items()
        ]  # fmt: skip
        yield _table(["workers", "threads each", "trials per hour", "over one worker, median of rounds"], rows)


def packing(draw: bool) -> Iterable[str]:
    del draw
    record = _read("packing")
    if record is None:
        return
    yield "## Trainings packed on a card\n"
    yield from _circumstances(record)
    rows = [
        [count, f"{result['trials_per_hour']:.0f}", f"{record['over_one'][count]:.2f}", f"{result['megabytes']:.0f} MB"]
        for count, result in record["packed"].items()
    ]
    yield _table(["at once", "trainings per hour", "over one", "memory each, at most"], rows)


def coordination(_draw_it: bool) -> Iterable[str]:
    record = _read("coordination")
    if record is None:
        return
    yield "## Sharing a study\n"
    yield from _circumstances(record)
    yield (
        f"Claiming a trial and ending it, in milliseconds (TPE; one process, {record['rounds']} times) beside so many "
        "finished ones.\n"
    )
    rows = [
        [store, f"{r['finished']:,}", f"{r['claim']:.0f}", f"{r['end']:.0f}", f"{r['p50']:.0f}", f"{r['p95']:.0f}"]
        for store, result in record["stores"].items()
        for r in result["latency"]
    ]
    yield _table(["store", "finished", "claim, median", "end, median", "both, median", "both, p95"], rows)
    yield (
        "Workers whose trainings are sleeps, all at once on this machine. Use: the share of their time that they "
        "slept.\n"
    )
    rows = [
        [store, str(r["workers"]), f"{r.get('training_seconds', record['seconds']):g} s", str(r["trials"]),
         f"{r['per_second']:.2f}", f"{100 * r['utilisation']:.1f} %",
         f"{r['p95']:.0f}", str(r["connections"] or ""), str(r["lost"]), str(r["twice"])]
        for store, result in record["stores"].items()
        for r in result["together"]
    ]  # fmt: skip
    head = [
        "store",
        "workers",
        "a training",
        "trials",
        "trials per second",
        "use",
        "both, p95",
        "connections",
        "lost",
        "twice",
    ]
    yield _table(head, rows)
    yield "Batched writes that an MLflow server takes, in milliseconds and per second.\n"
    rows = [
        [str(r["writers"]), str(r["metrics"]), f"{r['per_second']:.0f}", f"{r['p50']:.0f}", f"{r['p95']:.0f}"]
        for r in record["mlflow"]
    ]
    yield _table(["writers at once", "metrics in a write", "writes per second", "median", "p95"], rows)
    yield "What follows from it for a thousand workers: [docs/scale.md](../docs/scale.md).\n"


def memory(draw: bool) -> Iterable[str]:
    record = _read("memory")
    if record is None:
        return
    yield "## A worker's memory\n"
    trials, early = len(record["megabytes"]), record["early"] - 1
    half = (trials - early) // 2
    least, most = (
        statistics.median(values[-half:]) / statistics.median(values[early : early + half]) - 1
        for values in (record["least"], record["megabytes"])
    )
    yield (
        f"One worker, {trials} trials of MiniLM; the least and the most memory that it had during each. From trials "
        f"{early + 1} to {early + half}\nto trials {trials - half + 1} to {trials} their medians changed by "
        f"{100 * least:+.1f} % and {100 * most:+.1f} %; from trial {early + 1} on no trial's most was more than "
        f"{100 * record['growth']:.1f} %\nabove that one's. It goes up and down with how a trial's batches, of one "
        "length after another, find room.\n"
    )
    yield from _circumstances(record)
    if draw:
        _draw("memory", _memory, record)
    yield "![Memory of a worker by trial](figures/memory.svg)\n"


def view(_draw_it: bool) -> Iterable[str]:
    record = _read("view")
    if record is None:
        return
    yield "## The live view\n"
    yield (
        f"The launching process's own CPU time, with the live view and with lines alone, in {len(record['rounds'])} "
        f"rounds: the view took\n{100 * record['share']:.2f} % of the CPU time of the whole study.\n"
    )
    rows = [
        [str(i), f"{r['lines']['own']:.1f} s", f"{r['auto']['own']:.1f} s", f"{r['auto']['all']:.0f} s"]
        for i, r in enumerate(record["rounds"], start=1)
    ]
    yield from _circumstances(record)
    yield _table(["round", "lines", "live view", "the whole study"], rows)


def _memory(axes: Any, record: dict[str, Any]) -> None:
    for name, label in (("megabytes", "most"), ("least", "least")):
        axes.plot(range(1, len(record[name]) + 1), record[name], marker=".", label=label)
    axes.legend(frameon=False)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("trial")
    axes.set_ylabel("resident memory, MB")


# --- shared ---


def _read(name: str) -> dict[str, Any] | None:
    file = common.RECORDS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def _circumstances(record: dict[str, Any]) -> Iterable[str]:
    machine = record["machine"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    yield f"    {record['command']}\n"
    yield (
        f"{record['date']}; {machine['processor']}, {machine['cores']} cores, {machine['gib']} GiB{gpu};"
        f" {machine['system']}.\n{versions}.\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)  # joined to what follows, an empty line ends it


def _draw(name: str, draw: Callable[[Any, Any], None], record: Any) -> Path:
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    draw(axes, record)
    file = FIGURES / f"{name}.svg"
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
    return file


if __name__ == "__main__":
    main()
