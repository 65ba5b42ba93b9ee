"""PatchTST of two libraries at the size of training_throughput.py, which runs this by a Python that has them.

Prints one line of JSON: milliseconds of CPU time of each training step and each forecast of a batch, by library.
Tokens are made equal: one channel, a patch a bar, so that a window of 60 bars is 60 tokens (neuralforecast pads one
patch: 61). A window gives one forecast, 5 sessions ahead. Forecasts are timed as the forward pass alone, without what
their own predict adds.
"""

import json
import logging
import sys
import tempfile
import time
import warnings

import numpy as np
import pandas as pd
import torch

WIDTH, LAYERS, HEADS, BARS, BATCH, DROPOUT, HORIZON = 128, 4, 8, 60, 32, 0.1, 5
WARM = 3  # steps that are not counted


def intervals(seconds: list[float]) -> list[float]:
    """Milliseconds between the marks, without the first ones."""
    return [1e3 * (b - a) for a, b in zip(seconds[WARM:], seconds[WARM + 1 :], strict=False)]


def timed(function, n: int) -> list[float]:
    """Milliseconds of CPU time of n calls, after WARM more."""
    marks = [time.process_time()]
    for _ in range(n + WARM):
        function()
        marks.append(time.process_time())
    return intervals(marks)


def hugging_face(n_steps: int, bf16: bool) -> dict[str, list[float]]:
    """Its PatchTSTForPrediction under its Trainer, and its forward pass alone."""
    from transformers import PatchTSTConfig, PatchTSTForPrediction, Trainer, TrainerCallback, TrainingArguments

    config = PatchTSTConfig(
        num_input_channels=1,
        context_length=BARS,
        patch_length=1,
        patch_stride=1,
        num_hidden_layers=LAYERS,
        d_model=WIDTH,
        num_attention_heads=HEADS,
        ffn_dim=4 * WIDTH,
        attention_dropout=DROPOUT,
        ff_dropout=DROPOUT,
        head_dropout=DROPOUT,
        prediction_length=HORIZON,
    )
    model = PatchTSTForPrediction(config)
    rng = np.random.default_rng(0)
    rows = [
        {
            "past_values": torch.tensor(rng.normal(size=(BARS, 1)), dtype=torch.float32),
            "future_values": torch.tensor(rng.normal(size=(HORIZON, 1)), dtype=torch.float32),
        }
        for _ in range(BATCH * (n_steps + WARM + 2))
    ]
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            marks.append(time.process_time())

    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(prefix="peer_patchtst-"),
        max_steps=n_steps + WARM + 1,
        per_device_train_batch_size=BATCH,
        use_cpu=True,
        bf16=bf16,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[Clock()]).train()
    model.eval()
    batch = torch.stack([row["past_values"] for row in rows[:BATCH]])
    with torch.inference_mode():
        forecasts = timed(lambda: model(past_values=batch), n_steps)
    return {"train": intervals(marks), "forecast": forecasts}


def neuralforecast(n_steps: int) -> dict[str, list[float]]:
    """Its PatchTST by its own fit, and its forward pass alone."""
    import pytorch_lightning
    from neuralforecast import NeuralForecast
    from neuralforecast.models import PatchTST

    marks: list[float] = []

    class Clock(pytorch_lightning.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            marks.append(time.process_time())

    model = PatchTST(
        h=HORIZON,
        input_size=BARS,
        patch_len=1,
        stride=1,
        encoder_layers=LAYERS,
        n_heads=HEADS,
        hidden_size=WIDTH,
        linear_hidden_size=4 * WIDTH,
        dropout=DROPOUT,
        fc_dropout=DROPOUT,
        head_dropout=DROPOUT,
        attn_dropout=DROPOUT,
        max_steps=n_steps + WARM + 1,
        windows_batch_size=BATCH,
        inference_windows_batch_size=BATCH,
        callbacks=[Clock()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    rng, n_days = np.random.default_rng(0), 1000
    days = np.tile(pd.bdate_range("2015-01-01", periods=n_days), BATCH)
    names = np.repeat([f"S{i}" for i in range(BATCH)], n_days)
    frame = pd.DataFrame({"unique_id": names, "ds": days, "y": rng.normal(size=len(days))})
    forecaster = NeuralForecast(models=[model], freq="B")
    forecaster.fit(frame)
    batch = {
        "insample_y": torch.randn(BATCH, BARS, 1),
        "insample_mask": torch.ones(BATCH, BARS, 1),
        "futr_exog": None,
        "hist_exog": None,
        "stat_exog": None,
    }
    trained = forecaster.models[0].eval()
    with torch.inference_mode():
        forecasts = timed(lambda: trained(batch), n_steps)
    return {"train": intervals(marks), "forecast": forecasts}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    n = int(sys.argv[1])
    found = {"Hugging Face": hugging_face(n, False), "Hugging Face, bf16": hugging_face(n, True)}
    print(json.dumps(found | {"neuralforecast": neuralforecast(n)}))
