"""What a log shows of a study under way."""

import io
import time

from rich.console import Console

from raysd.progress import StudyProgress
from raysd.recipe import Recipe
from raysd.settings import with_changes
from raysd.study.design import Trial


def test_a_log_gets_what_a_terminal_shows(tiny_recipe: Recipe) -> None:
    log = io.StringIO()
    untrained = with_changes(tiny_recipe, {"train.epochs": 0}, "test")
    recipes = {"without [mixup]": tiny_recipe, "untrained": untrained}
    trials = [Trial(name, "variant", recipe, i, "") for i, (name, recipe) in enumerate(recipes.items())]
    with StudyProgress(Console(file=log, width=160), 4, heartbeat_seconds=0.02) as watch:
        watch.note("dashboard: http://[::1]:8265")
        watch.started(trials[0])
        watch.epoch(trials[0], {"epoch": 1, "loss": 0.25, "clips_per_second": 80.0})
        watch.started(trials[1])
        end = time.monotonic() + 60
        while "starting" not in log.getvalue():
            assert time.monotonic() < end
            time.sleep(0.01)
    first, *_, last = log.getvalue().splitlines()
    assert first == "dashboard: http://[::1]:8265"
    states, one, other = last.split(" | ")
    assert states.startswith("0 done, 0 failed, 2 running, 2 waiting  about ")
    assert one == "without [mixup] seed 0  epoch 1/2  loss 0.250  80 clips/s"
    assert other == "untrained seed 1  epoch 0/0  starting"
    said = log.getvalue()
    time.sleep(0.1)
    assert log.getvalue() == said  # no beat after the end


def test_a_quick_study_has_no_heartbeat(tiny_recipe: Recipe) -> None:
    log, trial = io.StringIO(), Trial("baseline", "baseline", tiny_recipe, 0, "")
    with StudyProgress(Console(file=log, width=160), 1) as watch:
        watch.started(trial)
        watch.finished(trial, {"official": {"dev": 0.75}, "seconds": 2.0})
    assert log.getvalue() == "   1/1 done   baseline seed 0  dev official 75.00  2 s\n"
