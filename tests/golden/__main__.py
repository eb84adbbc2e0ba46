"""From a compared study's folder to the golden files."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from src.comparison.forms import average_dir
from src.reports.model_card import render_card
from src.reports.report import render_report
from src.reports.search_record import JudgedSearch
from src.verdict.records import SINGLE
from src.verdict.tables import FORMS

HERE = Path(__file__).parent / "starter"
MODEL = "models:/starter@champion"


def main(study: Path) -> None:
    """Findings, card, report, and every contender's answers on the test split; the system's release is left out.

    `<name>/leave-one-out` of an average: the answers of the averages without one member each.
    """
    comparison = study / "comparison"
    result = JudgedSearch.from_json((comparison / "findings.json").read_text())
    machine = result.history.machine.rsplit(" ", 1)[0]
    result = replace(result, history=replace(result.history, machine=machine, commit=None))
    answers = {}
    for contender in result.verdict.contenders:
        if contender.form != SINGLE:
            folder = average_dir(contender.key, result.verdict.seeds, comparison)
            files = [folder / "test.npy"]
            answers[f"{contender.name}/leave-one-out"] = np.load(folder / "leave-one-out.npy")
        elif contender.test and contender.repeats:
            files = [comparison / "repeats" / contender.key / str(r.seed) / "test.npy" for r in contender.repeats]
        else:
            files = [comparison / "fixed" / contender.key / "test.npy"] if contender.test else []
        if files:
            answers[contender.name] = np.stack([np.load(f) for f in files])
    np.savez_compressed(HERE / "answers.npz", **answers)
    (HERE / "findings.json").write_text(result.to_json())
    (HERE / "card.md").write_text(render_card(result, MODEL))
    (HERE / "report.md").write_text(render_report(result.history, None, result)["report.md"])


def results(found: JudgedSearch) -> list[str]:
    """The README's table of results: each contender's test accuracy, and the winner's lead over the others."""
    names = {
        "tfidf_logreg": "TF-IDF + logistic regression",
        "untuned": "MiniLM, not fine-tuned",
        "default": "the default recipe",
    }
    lead = {a.other: a for a in found.verdict.against}
    rows = []
    for row in sorted(found.verdict.contenders, key=lambda c: -c.test["accuracy"].value if c.test else 0):
        if not row.test or row.name == "majority":
            continue
        test = row.test["accuracy"]
        recipe = row.recipe or row.name
        name, value = names.get(recipe, f"the best tuned settings, {recipe}"), f"{test.value:.4f}"
        if row.kind in ("default", "tuned"):
            name = f"{name}, {FORMS[row.form]}"
        if row.name == found.verdict.winner:
            name, value = f"{name}: the winner", f"**{value}**"
        cells = [name, f"{value} [{test.low:.4f}, {test.high:.4f}]", "", ""]
        if row.name in lead:
            of = lead[row.name].difference
            cells[2:] = [f"{of.value:+.4f} [{of.low:+.4f}, {of.high:+.4f}]", lead[row.name].verdict.replace("_", " ")]
        rows.append(f"| {' | '.join(cells)} |".replace("  ", " "))
    return rows


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    print(*results(JudgedSearch.from_json((HERE / "findings.json").read_text())), sep="\n")
