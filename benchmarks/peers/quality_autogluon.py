"""AutoGluon MultiModal with its own defaults on the same checkpoint: one training, a greedy soup of its best three.

Beside a torch without CUDA, torchvision's registrations fail to import; the text model needs none of them, so they are
made empty in this environment.
"""

import importlib.util
import shutil
from pathlib import Path

import quality_common as common


def main() -> None:
    silence_torchvision()
    from autogluon.multimodal import MultiModalPredictor

    asked = common.arguments()
    frames = common.splits(asked)
    shutil.rmtree(asked.place, ignore_errors=True)
    predictor = MultiModalPredictor(label="label", eval_metric="acc", path=str(asked.place))
    predictor.fit(
        train_data=frames["train"],
        tuning_data=frames["validation"],
        hyperparameters={
            "model.names": ["hf_text"],
            "model.hf_text.checkpoint_name": str(asked.model),
            "model.hf_text.max_text_len": asked.tokens,
            "env.num_gpus": 0,
            "env.num_workers": 0,
        },
        seed=0,
    )

    def predict(texts):
        return predictor.predict_proba(frames["test"].drop(columns="label"), as_pandas=True)[
            sorted(frames["train"]["label"].unique())
        ].to_numpy()[: len(texts)]

    common.deliver(asked, predict, asked.place / "model.ckpt")


def silence_torchvision() -> None:
    import torch

    found = importlib.util.find_spec("torchvision")
    if found is not None and found.origin and not torch.cuda.is_available():
        (Path(found.origin).parent / "_meta_registrations.py").write_text("")


if __name__ == "__main__":
    main()
