"""A model of neuralforecast learns a series a stock by its defaults; time_to_quality.py runs this by another Python.

    python peer_quality.py Y_TS.npy N_VALID INPUT_SIZE MODEL SEED MAX_STEPS OUT.npz

At each of its own validations (every 100 steps) this keeps the CPU seconds of the training steps alone, with all that
lies between them but its validations and ours, its own validation loss, and its forecasts of every validation day from
the INPUT_SIZE days before it. MAX_STEPS 0 is the model's default.

Legend: T sessions, S symbols, N validations, V validation sessions, I days that a forecast reads.
"""

import logging
import sys
import time
import warnings

import numpy as np
import pandas as pd
import pytorch_lightning
import torch
from neuralforecast import NeuralForecast, models

AT_ONCE = 8192  # windows in a pass of ours


class Watch(pytorch_lightning.Callback):
    """The clock of the training, which stands still in validations, and what was forecast at each of them."""

    def __init__(self, y_TS: np.ndarray, n_valid: int, input_size: int):
        windows_TSI = np.lib.stride_tricks.sliding_window_view(y_TS, input_size, axis=0)[-n_valid - 1 : -1]
        self.shape, self.input_size = (n_valid, y_TS.shape[1]), input_size
        self.windows = torch.from_numpy(windows_TSI.reshape(-1, input_size).copy())
        self.begun, self.aside, self.stopped = time.process_time(), 0.0, 0.0
        self.steps, self.seconds, self.losses, self.forecasts = [], [], [], []

    def on_train_start(self, *_: object) -> None:
        """The sanity check of Lightning is no part of it."""
        self.begun, self.aside = time.process_time(), 0.0

    def on_validation_start(self, *_: object) -> None:
        """Stop the clock."""
        self.stopped = time.process_time()

    def on_validation_end(self, trainer: pytorch_lightning.Trainer, module: pytorch_lightning.LightningModule) -> None:
        """Forecast, and let the clock go on."""
        if not trainer.sanity_checking:
            self.steps.append(trainer.global_step)
            self.seconds.append(self.stopped - self.begun - self.aside)
            self.losses.append(float(trainer.callback_metrics["ptl/val_loss"]))
            self.forecasts.append(self.forecast(module))
        self.aside += time.process_time() - self.stopped

    @torch.inference_mode()
    def forecast(self, module: pytorch_lightning.LightningModule) -> np.ndarray:
        """forecast_VS of the day after each window, by the forward pass that its own predict calls."""
        was_training = module.training
        module.eval()
        parts = []
        for part in self.windows.split(AT_ONCE):
            batch = {"insample_y": part[..., None], "insample_mask": torch.ones_like(part)[..., None]}
            parts.append(module(batch | dict.fromkeys(("futr_exog", "hist_exog", "stat_exog"))).reshape(-1))
        module.train(was_training)
        return torch.cat(parts).reshape(self.shape).numpy()


def main() -> None:
    """Train, and write what was watched."""
    path, n_valid, input_size, name, seed, max_steps, out = sys.argv[1:]
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    y_TS = np.load(path)
    n_sessions, n_symbols = y_TS.shape
    frame = pd.DataFrame(
        {
            "unique_id": np.repeat([f"S{s:04d}" for s in range(n_symbols)], n_sessions),
            "ds": np.tile(np.arange(n_sessions), n_symbols),
            "y": y_TS.T.reshape(-1),
        }
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    steps = {"max_steps": int(max_steps)} if int(max_steps) else {}
    model = getattr(models, name)(
        h=1,
        input_size=int(input_size),
        random_seed=int(seed),
        callbacks=[Watch(y_TS, int(n_valid), int(input_size))],
        accelerator="cpu",
        enable_model_summary=False,
        **quiet,
        **steps,
    )
    forecaster = NeuralForecast(models=[model], freq=1)
    forecaster.fit(frame, val_size=int(n_valid))
    (watch,) = forecaster.models[0].trainer_kwargs["callbacks"]  # it works on copies of what it is given
    np.savez(
        out,
        steps=watch.steps,
        seconds=watch.seconds,
        losses=watch.losses,
        forecasts=np.stack(watch.forecasts),
    )


if __name__ == "__main__":
    main()
