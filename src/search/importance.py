"""How much each searched setting had to do with the score."""

from optuna.trial import TrialState

from src.search.study import Book

FEWEST = 8  # finished trials; fewer say nothing


def importances(book: Book) -> dict[str, float]:
    """Shares that sum to 1, the largest first, over finished trials; empty where there are too few of them.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023), through Optuna.
    """
    done = book.of_state(TrialState.COMPLETE)
    if len(done) < FEWEST or len({t.value for t in done}) < FEWEST // 2:  # of equal scores it would make equal shares
        return {}
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances  # scikit-learn, for reports only

    try:
        found = get_param_importances(book.study, evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):  # no parameter that all of them have, say
        return {}
    return {key: float(share) for key, share in found.items()}
