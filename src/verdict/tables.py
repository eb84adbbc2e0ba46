"""A verdict as tables: rows for the terminal, and Markdown."""

import re
from collections.abc import Iterable, Sequence

from src.core.formatting import plural, short_params
from src.verdict.records import ContenderRecord, Interval, PairwiseResult, Verdict

WINNER = " *"
Table = tuple[list[str], list[list[str]]]  # the head, and the rows


def all_tables(verdict: Verdict) -> list[Table]:
    """The tables of a verdict, in the order in which they are shown."""
    return [validation_table(verdict), test_table(verdict), comparison_table(verdict)]


def validation_table(verdict: Verdict) -> Table:
    """A row per contender: the search's score, the mean over fresh seeds and its spread, optimism, cost, settings."""
    head = ["on validation", "search", verdict.metric, "± over seeds", "optimism", "MB", "ms per 1000", "settings"]
    return head, [_validation_row(verdict, c) for c in verdict.contenders]


def test_table(verdict: Verdict) -> Table:
    """A row per contender that the test split was opened for: every metric with its 95 % interval."""
    tested = [c for c in verdict.contenders if c.test]
    metrics = [m for m in tested[0].test if m != "loss" or verdict.metric == "loss"]
    metrics = [verdict.metric, *(m for m in metrics if m != verdict.metric)]
    rows = [[_name(verdict, c), *(_interval(c.test[m]) for m in metrics)] for c in tested]
    return [f"on {verdict.test_examples} test examples", *metrics], rows


def comparison_table(verdict: Verdict) -> Table:
    """A row per contender that the winner was compared with."""
    head = [f"{verdict.winner} against", f"{verdict.metric} difference", "verdict", "only winner right",
            "only other right", "McNemar p"]  # fmt: skip
    return head, [_comparison_row(a) for a in verdict.against]


def sentences(verdict: Verdict) -> list[str]:
    """The verdict in sentences; the first one is the decision."""
    words = []
    for against in verdict.against:
        kind = verdict.contender(against.other).kind
        if kind != "baseline" or against.other == verdict.best_baseline:
            role = "the best baseline, " if kind == "baseline" else ""
            words.append(f"{verdict.winner} against {role}{against.other}: {against.verdict.upper()} "
                         f"({signed_interval(against.difference)} {verdict.metric}).")  # fmt: skip
    decision = words[0] if words else f"{verdict.winner} was compared with nothing."
    words = [" ".join([decision, *_limits(verdict)]), *words[1:]]
    if verdict.contender(verdict.winner).kind == "default":
        words.append("The winner is the default recipe: no tuned settings did better on fresh seeds.")
    top = verdict.search_top
    chosen = f"the best in the search was {top}" if top != verdict.winner else "as in the search"
    winner = verdict.contender(verdict.winner)
    words.append(
        f"Best of {verdict.chosen_among} candidates on fresh seeds: {verdict.winner} ({chosen}); optimism of the "
        f"search: {winner.optimism:+.4f}."
        if winner.optimism is not None
        else f"Best of {verdict.chosen_among} candidates on fresh seeds: {verdict.winner} ({chosen})."
    )
    asked = f"a margin of {verdict.margin:g} was asked" if verdict.margin else "no margin was asked"
    words.append(
        f"{verdict.test_examples} test examples, {len(verdict.seeds)} fresh seeds; 95 % intervals over examples and "
        f"seeds, differences widened for the choice among {verdict.chosen_among}; {asked}. This test split has been "
        f"opened {plural(verdict.openings, 'time')}."
    )
    return words


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
    return row.name + (f" ({row.about})" if row.about and row.kind != "tuned" else "") + mark


def _validation_row(verdict: Verdict, row: ContenderRecord) -> list[str]:
    settings = row.problem or short_params(row.params)
    return [
        _name(verdict, row),
        _number(row.search_score),
        _number(row.validation),
        _number(row.spread),
        "" if row.optimism is None else f"{row.optimism:+.4f}",
        "" if row.megabytes is None else f"{row.megabytes:.1f}",
        "" if row.ms_per_1000_texts is None else f"{row.ms_per_1000_texts:.0f}",
        settings,
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


def _interval(found: Interval) -> str:
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"


def signed_interval(found: Interval) -> str:
    """A difference with its sign and interval."""
    return f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
