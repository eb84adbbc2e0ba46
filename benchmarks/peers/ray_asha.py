"""Ray Tune with ASHA around the Trainer: a process with one processor per trial, a report each epoch."""

import common

EPOCHS = common.RANGES["num_train_epochs"][1]


def main() -> None:
    arguments = common.arguments()
    import ray
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    def trainable(config):
        import sys
        from pathlib import Path

        sys.path.insert(0, str(Path(__file__).parent))
        import common
        from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, set_seed

        class Report(TrainerCallback):
            def on_evaluate(self, _args, state, _control, metrics, **_):
                tune.report({"accuracy": metrics[common.METRIC], "epoch": round(state.epoch)})

        set_seed(arguments.seed)
        tokenizer, cut = common.tokenised(arguments)
        names = ("learning_rate", "weight_decay", "num_train_epochs")
        Trainer(
            common.model(arguments, config["dropout"]),
            common.training_arguments(arguments, **{k: config[k] for k in names}),
            train_dataset=cut["train"],
            eval_dataset=cut["validation"],
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=common.accuracy,
            callbacks=[Report()],
        ).train()

    class Note(tune.Callback):
        """A trial that ASHA stopped ends below its schedule: its last score counts, as Ray counts it."""

        def on_trial_complete(self, trial, **_):
            common.note(arguments, trial.last_result["accuracy"], common.plain(trial.config))

    ray.init(include_dashboard=False, log_to_driver=False)
    tune.Tuner(
        trainable,
        param_space={
            "learning_rate": tune.loguniform(*common.RANGES["learning_rate"]),
            "weight_decay": tune.uniform(*common.RANGES["weight_decay"]),
            "num_train_epochs": tune.randint(common.RANGES["num_train_epochs"][0], EPOCHS + 1),
            "dropout": tune.uniform(*common.RANGES["dropout"]),
        }
        if common.RECIPE is None
        else {name: common.RECIPE[name] for name in common.RANGES},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            num_samples=arguments.trials,
            scheduler=ASHAScheduler(time_attr="epoch", max_t=EPOCHS),
        ),
        run_config=tune.RunConfig(storage_path=str(arguments.place.resolve()), callbacks=[Note()], verbose=0),
    ).fit()


if __name__ == "__main__":
    import random

    import numpy

    seed = common.arguments().seed
    random.seed(seed)
    numpy.random.seed(seed)  # Ray's basic search draws from numpy's global state
    main()
