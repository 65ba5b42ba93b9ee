"""A process that has imported everything, and forks a child for each command: no run pays for its imports.

Started by server.py with crash_points.c loaded. Reads one JSON object a line and answers with one.
"""

import contextlib
import json
import os
import resource
import runpy
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def child(task: dict) -> int:
    os.chdir(task["cwd"])
    os.environ.update(task.get("env", {}))
    os.environ["PWD"] = task["cwd"]
    for number, name in ((1, "out"), (2, "err")):
        handle = os.open(task[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
    if seconds := task.get("cpu_seconds"):
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = 0
    try:
        if task["command"] == "train":
            sys.argv = [str(ROOT / "train.py"), *task["words"]]
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            from hftraining.__main__ import main

            code = main(task["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def warm(task: dict) -> None:
    """One run in this process: its forks then have compiled and loaded all that it needed."""
    from hydra.core.global_hydra import GlobalHydra

    from hftraining.experiment.compose import composed
    from hftraining.experiment.config import typed_config
    from hftraining.experiment.run import run_experiment

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        run_experiment(typed_config(composed(task["words"])))
    GlobalHydra.instance().clear()


def main() -> None:
    sys.path.insert(0, str(ROOT))
    import hydra  # noqa: F401

    import hftraining.base_model_trainer
    import hftraining.experiment.replay
    import hftraining.sweep.sweeper
    import hftraining.sweep.worker  # noqa: F401

    print("ready", flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        if task["command"] == "warm":
            warm(task)
            print("warm", flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = child(task)
            finally:
                os._exit(code)
        print(json.dumps({"pid": pid}), flush=True)
        _, status, usage = os.wait4(pid, 0)
        ended = os.waitstatus_to_exitcode(status)
        print(json.dumps({"code": ended, "cpu": usage.ru_utime + usage.ru_stime}), flush=True)


main()
