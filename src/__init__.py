"""Trialbook finds the best settings for a text classifier, with evidence that they are best.

Data flows from top to bottom; every import points down::

    sweep.py train.py compare.py promote.py predict.py reproduce.py publish.py status.py ui.py     the commands
         |                  hydra_plugins/: the sweeper and launcher that Hydra starts behind sweep and compare
    cli/            help pages, mistyped overrides, how errors are printed, exit codes
         |
    workflows/      what each command does, in the launching process
         |            sweep/    plan, memory_plan, run, monitor, finish, report
         |            compare/  plan, run, monitor, form_choice, evaluate, contender_records, record
         |            predict/  model_choice, texts, answers, run
         |            train promote reproduce publish status ui join; multirun for Hydra's -m
    workers/        worker processes: launcher, recipe_check, context, search_worker, comparison_*, remote, cost
         |
    comparison/     saved_study, contenders, forms, selection, launch_lock
         |
    console/        output, live_view, data_summary, error_messages: everything that is printed
         |
    tracking/       run_log, run_tree, recorders, store, registry, logged_model, folder_sync, hub
         |
    reports/        search_record, error_analysis, figures, report, model_card
         |
    search/         space, sampler, asha, screening, study, trial_lifecycle, stopping, storages/
    verdict/        bootstrap, estimates, decision, power, tables (beside search/; neither imports the other)
         |
    training/       trainer, classifier_trainer, pretrained, classifiers, adapters, callbacks, checkpoints, dry_run
         |
    data/           loading, labels, split_files, splits, leakage, dataset, tokenization, test_split; starter reviews
         |            files/    csv, tsv, json, parquet, arrow, xlsx: cells as text, exactly as written
         |
    config/         compose, reader (Hydra's configs to settings), settings (frozen dataclasses), groups
         |
    core/           records, record_files, errors, messages, paths, cache, environment, task, metric, own_code, shutdown

Each outside library has one home: Hydra in ``config/``, ``cli/`` and where jobs are launched, Optuna in ``search/``,
MLflow in ``tracking/``, torch and transformers in ``training/``, matplotlib in ``reports/``, rich in ``console/``.
Only a comparison reads the test split (``data/test_split.py``). Import contracts in ``pyproject.toml`` hold all this.
"""
