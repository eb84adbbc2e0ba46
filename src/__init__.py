"""Trialbook: the best settings for a text classifier, and the evidence that they are best.

How the data flows, top to bottom; every import points down or sideways along a line, never up::

    sweep.py   train.py             the commands (behind Hydra's -m: hydra_plugins/, the sweeper and the local launcher)
         |        |
    runner.py     commands.py       the order of things in the launching process; how ends and refusals are answered
    watch.py      closing.py        ... while workers work; ... when they have ended
    plan.py                         ... before they start: every check there is, and the price
         |
    worker.py                       the order of things in a worker: claim, train, record, tell
         |
    mirror.py                       what of a study and its trainings goes into MLflow's runs
         |------------------------.
    search/                   evidence/
      space, lint               store     the MLflow database and experiment
      proposals, halving        runs      a run's records: an outbox on disk, delivered in order
      study, life, leases       delivered the best checkpoint as an MLflow model
      storage, stopping         environment
      account     the terminal    |
         |------------------------'
    learning/                       checkpoints, finetune and judge (the Trainer), resume, metrics, baselines
         |
    text/                           sources, overlap, splits, corpus, tokens; the shipped starter reviews
         |
    config.py  settings.py  records.py  errors.py  paths.py  drain.py        the words every room uses

Outside libraries have one home each: Hydra and OmegaConf in ``config.py``, the commands and ``hydra_plugins/``; Optuna
in ``search/``; MLflow in ``evidence/``; torch and transformers in ``learning/`` (the delivered model is loaded in
``evidence/``). Import contracts in ``pyproject.toml`` hold all of this.
"""
