"""Trialbook: the best settings for a text classifier, and the evidence that they are best.

How the data flows, top to bottom; an arrow is an import, and nothing points up::

    sweep.py  train.py                      commands: parse, call the runner, choose the exit code
        |
    runner.py                               the one place that knows the order of things
        |---------------------------.
    search/                     evidence/   search: space, lint, study, sampling, trials, workers, account
        |                           |       evidence: the MLflow store, run records and their outbox, the best model
        '-----------.---------------'
                learning/                   checkpoints, metrics, fine-tuning (the Trainer), baselines
                    |
                  text/                     sources, splits, overlap, tokens; the shipped starter reviews
                    |
    config.py  settings.py  records.py  errors.py      the words every room uses

Outside libraries have one home each: Hydra and OmegaConf in ``config.py``, the commands and ``hydra_plugins/``
(Trialbook's sweeper and local launcher behind Hydra's ``-m``); Optuna in ``search/``; MLflow in ``evidence/``; the
Hugging Face Trainer in ``learning/finetune.py``. Import contracts in ``pyproject.toml`` hold all of this.
"""
