"""How much each searched setting had to do with the score."""

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import TrialState

from src.search.study import Book

FEWEST = 4  # finished trials; fewer say nothing


def importances(book: Book) -> dict[str, float]:
    """Shares that sum to 1, the largest first, over finished trials; empty where there are too few of them.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023), through Optuna.
    """
    if len(book.of_state(TrialState.COMPLETE)) < FEWEST:
        return {}
    try:
        found = optuna.importance.get_param_importances(book.study, evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):  # all scores are equal, say
        return {}
    return {key: float(share) for key, share in found.items()}
