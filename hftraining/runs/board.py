"""TensorBoard's event file of a run; every event is flushed at once."""

import math
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2, metadata
from tensorboard.plugins.hparams import summary_v2 as hparams_pb  # plugins.hparams.api would need tensorflow
from tensorboard.summary.writer.record_writer import RecordWriter

LAYOUT: dict[
    str, dict[str, tuple[str, ...]]
] = {  # TensorBoard's custom scalars: page -> chart -> tags, as regular expressions
    "Loss against Sharpe": {
        "loss": ("train/loss", "train/forecast_loss", "eval/loss"),
        "Sharpe ratio of the probe": ("profit/sharpe_ratio",),
        "rank correlation of loss and profit": ("profit/loss_correlation",),
    },
    "Profit of the probe": {
        "total return": ("profit/total_return",),
        "deepest drawdown": ("profit/max_drawdown",),
        "trades won": ("profit/win_rate",),
        "closed trades": ("profit/trade_count",),
    },
}


class Board:
    """Writes the event file of one run.

    Not torch's SummaryWriter, which would pull torch into this floor, nor TensorBoard's EventFileWriter, whose
    thread flushes late (a kill loses steps) and can flush while the caller writes.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        # TensorBoard reads event files in the order of their names: a resume within the same second must come later.
        earlier = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.*")]
        stamp = max([int(time.time()), *(second + 1 for second in earlier)])
        name = f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}"
        self._file = open(folder / name, "xb")
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        if purge_step is not None:
            self._add(step=purge_step, session_log=SessionLog(status=SessionLog.START))
        self._add(step=0, summary=self._layout())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step."""
        pairs = [
            Summary.Value(tag=tag, simple_value=math.nan if value is None else value) for tag, value in values.items()
        ]
        self._add(step=step, summary=Summary(value=pairs))

    def hparams(self, step: int, hparams: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write the config, and the metrics that came of it, for the HParams page."""
        names = [hparams_pb.HParam(name) for name in hparams]
        self._add(step=0, summary=hparams_pb.hparams_config_pb(names, [hparams_pb.Metric(tag) for tag in metrics]))
        self._add(step=0, summary=hparams_pb.hparams_pb(hparams, trial_id="."))
        self.scalars(step, metrics)

    def close(self) -> None:
        """Close the event file."""
        self._file.close()

    def _layout(self) -> Any:
        """The summary of LAYOUT, as custom_scalar.summary.pb makes it, which would need tensorflow."""

        def chart(title: str, tags: tuple[str, ...]) -> Any:
            lines = layout_pb2.MultilineChartContent(tag=[f"^{tag}$" for tag in tags])
            return layout_pb2.Chart(title=title, multiline=lines)

        pages = [
            layout_pb2.Category(title=title, chart=[chart(*item) for item in charts.items()])
            for title, charts in LAYOUT.items()
        ]
        layout = layout_pb2.Layout(category=pages)
        value = Summary.Value(
            tag=metadata.CONFIG_SUMMARY_TAG,
            metadata=metadata.create_summary_metadata(),
            tensor=TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()]),
        )
        return Summary(value=[value])

    def _add(self, **fields: Any) -> None:
        self._records.write(Event(wall_time=time.time(), **fields).SerializeToString())
        self._file.flush()
