"""bertuner: its own loop of Optuna and MLflow. Six epochs each, stopped early; epochs are not searched."""

import common
from bertuner.BERTuner import BERTuneClassifier

EPOCHS = 6


def span(name):
    low, high = common.RANGES[name]
    return {"low": low, "high": high}


def main() -> None:
    arguments = common.arguments()
    splits = common.data(arguments)
    common.listen(arguments, num_train_epochs=EPOCHS)
    classifier = BERTuneClassifier(
        models_dir=str(arguments.place / "models"),
        text_feature="sentence",
        target_cols=["label"],
        data_splits={**splits, "test": splits["validation"]},  # it wants one, and reads it only after the search
        seed=arguments.seed,
        mlflow_tracking_uri=f"sqlite:///{arguments.place.resolve()}/mlflow.db",
        max_length=128,
    )
    classifier.initialize_model_choices({"minilm": str(arguments.model)})
    classifier.initialize_search_space(
        {
            "model": ["minilm"],
            "learning_rate": {**span("learning_rate"), "log": True},
            "batch_size": [common.BATCH],
            "loss_type": ["weighted"],
            "weight_decay": span("weight_decay"),
            "warmup_ratio": {"low": 0.0, "high": 0.0},
            "scheduler": ["linear"],
            "dropout": span("dropout"),
            "early_stopping_patience": {"low": 3, "high": 3},
        }
    )
    classifier.optimize(n_trials=arguments.trials, optimize_metric="accuracy", study_name="benchmark")


if __name__ == "__main__":
    main()
