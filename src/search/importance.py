"""The importance of each searched setting for the score."""

from optuna.trial import TrialState

from src.search.study import Study

FEWEST = 8  # finished trials; fewer are too few to tell


def importances(study: Study) -> dict[str, float]:
    """The importance of each setting over finished trials, largest first. They sum to 1; empty if trials are too few.

    Source: PED-ANOVA (Watanabe, Bansal and Hutter 2023), as in Optuna.
    """
    done = study.trials_in_state(TrialState.COMPLETE)
    # if scores are equal, PED-ANOVA gives all settings the same importance
    if len(done) < FEWEST or len({t.value for t in done}) < FEWEST // 2:
        return {}
    # imports scikit-learn, which only reports need
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    try:
        importances_by_key = get_param_importances(study.optuna_study, evaluator=PedAnovaImportanceEvaluator())
    except (ValueError, RuntimeError):  # for example, no parameter that all trials have
        return {}
    return {key: float(share) for key, share in importances_by_key.items()}
