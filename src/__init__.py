"""Trialbook: the best settings for a text classifier, and the evidence that they are best.

How the data flows, top to bottom; every import points down or sideways along a line, never up::

    sweep.py  train.py  compare.py  promote.py  predict.py  reproduce.py  publish.py  status.py  ui.py     the commands
         |                  (behind sweep and compare: hydra_plugins/, the sweeper and the local launcher)
    commands.py  manual.py          how ends and refusals are answered; --help
    mistyped.py                     what a command line says that no config has
         |
    runner/                         the order of things, a module per verb
      searching   plan, watch, closing        a search: checks and price, lines on the way, the best model
                  pace                        ... how many workers pay, measured
      comparing   contenders, telling         a comparison: who stands in it, on which fresh seeds; price and lines
                  choice, judging             ... the winner, chosen before the test split is opened; the verdict
      training  promoting  predicting  reproducing  publishing
      reporting   inspecting, timesheet       the study's history and findings; a look into weights; who did what when
      live                        what a terminal shows while workers work
      overview  browsing            how studies stand, and their trials as a file; MLflow's UI and the dashboard
      studies  joining              a study found again by its name; more workers for one
      outpost                       workers whose machines share no folder: what is sent, what comes back
      worker      repeats           in the workers: trials and baselines; fresh-seed trainings and test answers
      desk                          what every training process has at hand
         |
    mirror.py                       what of all that goes into MLflow's runs
         |
    pages/                          analysis, figures, report, card: what is shown, drawn from records
      history, findings               (the records); document and the templates
         |------------------------.----------------------.
    search/                   evidence/               verdict/
      space, lint               store, runs             scores, paired   metrics, intervals, McNemar's test
      proposals, halving        recorded, depot         power            what can be shown, beforehand
      study, life, leases       delivered, registry     judgement        better, worse, not shown
      storage: journal or       environment, hub        record, tables
        database                views
      stopping, importance        |                      |
      dashboard                   |                      |
      account     the terminal    |                      |
         |------------------------'----------------------'
    learning/                       checkpoints, finetune, judge, speed and ranks (the Trainer, one device or several),
         |                          embeddings and processor (less to compute, the same learned), resume, classify,
         |                          metrics, baselines, ready_made, inspection
         |
    text/                           sources, overlap, splits, lint, corpus, tokens, seal, online; the shipped starter
         |                          reviews
         |
    config.py  settings.py  records.py  errors.py  paths.py  drain.py        the words every room uses

Outside libraries have one home each: Hydra and OmegaConf in ``config.py``, the commands and ``hydra_plugins/``; Optuna
in ``search/``; MLflow in ``evidence/``; torch and transformers in ``learning/`` (the delivered model is loaded in
``evidence/``); matplotlib in ``pages/``. The test split is read through ``text/seal.py`` by a comparison alone. Import
contracts in ``pyproject.toml`` hold all of this.
"""
