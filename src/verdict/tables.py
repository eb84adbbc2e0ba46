"""A verdict as tables: rows for the terminal, and Markdown."""

import re
from collections.abc import Iterable, Sequence

from src.core.formatting import plural, short_params
from src.core.task import MULTI_LABEL, REGRESSION, Threshold
from src.verdict.records import (
    AVERAGE,
    REFIT,
    SINGLE,
    STUDENT,
    ContenderRecord,
    Interval,
    LabelScores,
    PairwiseResult,
    Verdict,
)

WINNER = " *"
PER_LABEL = ("precision", "recall", "f1")  # the scores of one label
FORMS = {
    SINGLE: "trained once",
    AVERAGE: "averaged",
    REFIT: "refitted and averaged",
    STUDENT: "its students averaged",
}
Table = tuple[list[str], list[list[str]]]  # the head, and the rows


def all_tables(verdict: Verdict) -> list[Table]:
    """The tables of a verdict, in the order in which they are shown."""
    return [validation_table(verdict), test_table(verdict), *attribution_tables(verdict), comparison_table(verdict)]


def validation_table(verdict: Verdict) -> Table:
    """A row per contender: the search's score, the mean over fresh seeds and its spread, optimism, cost, settings."""
    head = ["on validation", "search", verdict.metric, "± over seeds", "optimism", "MB", "ms per 1000", "settings"]
    return head, [_validation_row(verdict, c) for c in verdict.contenders]


def test_table(verdict: Verdict) -> Table:
    """A row per contender that the test split was opened for: every metric with its 95 % interval."""
    tested = [c for c in verdict.contenders if c.test]
    metrics = [m for m in tested[0].test if m != "loss" or verdict.metric == "loss"]
    metrics = [verdict.metric, *(m for m in metrics if m != verdict.metric)]
    rows = [[_name(verdict, c), *(format_interval(c.test[m]) for m in metrics)] for c in tested]
    return [f"on {verdict.test_examples} test examples", *metrics], rows


def attribution_tables(verdict: Verdict) -> list[Table]:
    """The attribution table; none for a verdict of an earlier version, which knows single trainings only."""
    has_forms = any(c.form != SINGLE for c in verdict.contenders)
    return [attribution_table(verdict)] if has_forms else []


def attribution_table(verdict: Verdict) -> Table:
    """A row per recipe and form that was tested: what it gives over the default recipe trained once."""
    head = ["what it gives", f"test {verdict.metric}", "over the default recipe trained once", "verdict"]
    recipes = [c for c in verdict.contenders if c.test and c.kind in ("default", "tuned")]
    return head, [_attribution_row(verdict, c) for c in recipes]


def comparison_table(verdict: Verdict) -> Table:
    """A row per contender that the winner was compared with."""
    tested = ["only winner right", "only other right", "McNemar p"]
    if verdict.task == REGRESSION:
        tested = ["winner nearer", "other nearer", "sign test p"]
    head = [f"{verdict.winner} against", f"{verdict.metric} difference", "verdict", *tested]
    return head, [_comparison_row(a) for a in verdict.against]


def per_label_table(scores: Sequence[LabelScores]) -> Table:
    """A row per label."""
    head = ["by label", "examples", "predicted", *PER_LABEL]
    rows = [
        [s.label, str(s.examples), str(s.predicted), *(format_interval(getattr(s, name)) for name in PER_LABEL)]
        for s in scores
    ]
    return head, rows


def sentences(verdict: Verdict) -> list[str]:
    """The verdict in sentences; the first one says what all of this gives over the default recipe trained once."""
    words = [" ".join([_over_default(verdict), *_limits(verdict)])]
    for against in verdict.against:
        other = verdict.contender(against.other)
        other_recipe = other.form == SINGLE and other.name not in ("default", verdict.recipe_of(verdict.winner).name)
        if other_recipe and (other.kind != "baseline" or other.name == verdict.best_baseline):
            role = "the best baseline, " if other.kind == "baseline" else ""
            words.append(_decision(verdict, against, f"{role}{against.other}"))
    if verdict.contender(verdict.winner).kind == "default" and not verdict.pick:
        words.append("The winner is the default recipe: no tuned settings did better on fresh seeds.")
    recipe, top = verdict.recipe_of(verdict.winner), verdict.search_top
    chosen = f"the best in the search was {top}" if top != recipe.name else "as in the search"
    optimism = "" if recipe.optimism is None else f"; optimism of the search: {recipe.optimism:+z.4f}"
    if verdict.pick:
        words.append(f"{recipe.name} was picked from the study's trials ({verdict.pick}){optimism}.")
    else:
        words.append(f"Best of {verdict.chosen_among} candidates on fresh seeds: {recipe.name} ({chosen}){optimism}.")
    if (threshold := verdict.contender(verdict.winner).threshold) is not None:
        words.append(
            f"{verdict.winner} answers {_from_which_probability(threshold, verdict.task)} on, as chosen on "
            "validation; all recipes and fitted baselines have a threshold of their own. It is in the registered "
            "weights: their probabilities are shifted so that it is 0.5."
        )
    if verdict.form_reason:
        words.append(f"The weights to register are {describe_weights(verdict)}: {verdict.form_reason}.")
    widened = "" if verdict.pick else f", differences widened for the choice among {verdict.chosen_among}"
    asked = f"a margin of {verdict.margin:g} was asked" if verdict.margin else "no margin was asked"
    words.append(
        f"{verdict.test_examples} test examples, {len(verdict.seeds)} fresh seeds; 95 % intervals over examples and "
        f"seeds{widened}; {asked}. This test split has been opened {plural(verdict.openings, 'time')}."
    )
    return words


def _from_which_probability(threshold: Threshold, task: str) -> str:
    if isinstance(threshold, (list, tuple)):
        return f"each label from a probability of its own ({', '.join(f'{t:.4f}' for t in threshold)})"
    which = "each label" if task == MULTI_LABEL else "the second label"
    return f"{which} from a probability of {threshold:.4f}"


def describe_weights(verdict: Verdict) -> str:
    """What the weights to register are, in words."""
    winner, n_seeds = verdict.contender(verdict.winner), len(verdict.seeds)
    return {
        SINGLE: f"seed {winner.registered_seed}, the median of {n_seeds} fresh seeds on validation",
        AVERAGE: f"the average of {n_seeds} trainings from fresh seeds",
        REFIT: f"the average of {n_seeds} trainings from fresh seeds on train + validation",
        STUDENT: f"the average of {n_seeds} students, trained on the answers of the winner's seed runs to unlabelled "
        "texts, too",
    }[winner.form]


def _over_default(verdict: Verdict) -> str:
    against = verdict.result_against("default")
    if against is not None:
        return _decision(verdict, against, "the default recipe trained once")
    if verdict.winner == "default":
        return "default is the default recipe trained once: search and averaging have given nothing over it."
    return f"{verdict.winner} was not compared with the default recipe, which failed on a seed."


def _decision(verdict: Verdict, against: PairwiseResult, other: str) -> str:
    difference = f"{signed_interval(against.difference)} {verdict.metric}"
    return f"{verdict.winner} against {other}: {against.verdict.upper()} ({difference})."


def _limits(verdict: Verdict) -> list[str]:
    """What the decision does not stand on, in sentences."""
    without = [f"{name}, which {why}" for name, why in verdict.not_judged]
    missing = [f"Not compared with the {'baseline' if len(without) == 1 else 'baselines'} {'; '.join(without)}."]
    return [*(missing if without else []), *(f"{limit}." for limit in verdict.limits)]


def to_markdown(verdict: Verdict) -> str:
    """The verdict as a Markdown page."""
    rendered = [markdown_table(*table) for table in all_tables(verdict)]
    notes = [f"Note: {note}." for note in verdict.notes]
    parts = [f"# Verdict on {verdict.study}", *sentences(verdict), *rendered, *notes, _small(verdict)]
    return "\n\n".join(parts) + "\n"


def _name(verdict: Verdict, row: ContenderRecord) -> str:
    mark = WINNER if row.name == verdict.winner else ""
    about = f" ({row.about})" if row.about and row.kind != "tuned" and row.form == SINGLE else ""
    return row.name + about + mark


def _validation_row(verdict: Verdict, row: ContenderRecord) -> list[str]:
    settings = row.problem or (short_params(row.params) if row.form == SINGLE else "")
    return [
        _name(verdict, row),
        _number(row.search_score),
        _number(row.validation),
        _number(row.spread),
        "" if row.optimism is None else f"{row.optimism:+z.4f}",
        "" if row.megabytes is None else f"{row.megabytes:.1f}",
        "" if row.ms_per_1000_texts is None else f"{row.ms_per_1000_texts:.0f}",
        settings,
    ]


def _attribution_row(verdict: Verdict, row: ContenderRecord) -> list[str]:
    over = row.over_default
    recipe = "the default recipe" if row.kind == "default" else row.recipe or row.name
    return [
        f"{recipe}, {FORMS[row.form]}{WINNER if row.name == verdict.winner else ''}",
        format_interval(row.test[verdict.metric]),
        signed_interval(over.difference) if over else "",
        over.verdict if over else "",
    ]


def _comparison_row(row: PairwiseResult) -> list[str]:
    return [
        row.other,
        signed_interval(row.difference),
        row.verdict,
        str(row.only_winner),
        str(row.only_other),
        f"{row.p:.3g}",
    ]


def _small(verdict: Verdict) -> str:
    prints = ", ".join(f"{split} {value}" for split, value in verdict.fingerprints.items())
    return f"Data {verdict.data}, fingerprints: {prints}. Seeds: {', '.join(map(str, verdict.seeds))}. {verdict.made}."


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """A Markdown table. The first `left` columns and the settings are aligned left, the others right."""
    ruler = ["---" if i < left or name == "settings" else "---:" for i, name in enumerate(head)]
    lines = [
        [escape_markdown(cell) for cell in head],
        ruler,
        *([escape_markdown(cell) for cell in row] for row in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def escape_markdown(value: object) -> str:
    """The value on one line, with Markdown's and HTML's special characters escaped, since it may come from data."""
    text = "" if value is None else " ".join(str(value).split())
    return re.sub(r"([|\\`<>]|(?<=\])\()", r"\\\1", text)


def format_interval(found: Interval) -> str:
    """A value with its interval."""
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def signed_interval(found: Interval) -> str:
    """A difference with its sign and interval."""
    return f"{found.value:+z.4f} [{found.low:+z.4f}, {found.high:+z.4f}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
