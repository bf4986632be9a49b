"""Studies that TensorBoard and MLflow are told of, under a real Ray: what is to be read there, and what goes wrong."""

import importlib.util
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workplace import STUDY, Workplace

from raysd.results.schema import Record

TWO = STUDY.replace("seeds: [0, 1]", "seeds: [0]\nreferences: []").replace(
    "  gaussian: { scoring.name: gaussian }\n", ""
)
NEEDS_MLFLOW = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None, reason="MLflow is not installed: pip install -e '.[mlflow]'"
)


def scalars(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Tag, step and value in TensorBoard's event files, whose records are length, checksum, content, checksum."""
    from tensorboardX.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]

    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, at = path.read_bytes(), 0
        while at < len(content):
            (length,) = struct.unpack_from("<Q", content, at)
            event = Event.FromString(content[at + 12 : at + 12 + length])
            yield from ((value.tag, event.step, value.simple_value) for value in event.summary.value)
            at += 16 + length


def official(record: Record) -> float:
    rows = list(record.metrics)
    (value,) = (row["value"] for row in rows if (row["machine"], row["metric"]) == ("all", "official"))
    return value


@pytest.mark.slow
@NEEDS_MLFLOW
def test_both_hold_the_loss_of_each_epoch_and_the_metrics(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(TWO)
    events, tracked = place.folder / "events", place.folder / "tracked"
    status, _, err = place.run("run", "--set", f"scale.tensorboard={events}", "--set", f"scale.mlflow={tracked}")
    assert status == 0, err
    assert "nothing more is logged" not in err
    assert "INFO mlflow" not in err
    records = place.records()
    assert len(records) == 2

    from mlflow.tracking import MlflowClient  # pyright: ignore[reportMissingImports]

    client = MlflowClient(f"sqlite:///{tracked}/mlflow.db")
    experiment = client.get_experiment_by_name("study")
    assert experiment is not None
    runs = {run.data.tags["trial"]: run for run in client.search_runs([experiment.experiment_id])}
    assert runs.keys() == records.keys()
    for key, record in records.items():
        losses = [epoch["loss"] for epoch in record.history]
        (folder,) = (events / "study").glob(f"*{key[:8]}")
        seen = list(scalars(folder))
        in_order = [(step, value) for tag, step, value in seen if tag == "ray/tune/loss"]
        assert in_order == [(epoch, pytest.approx(loss)) for epoch, loss in enumerate(losses, 1)]
        assert ("ray/tune/dev/all/official", 3, pytest.approx(official(record))) in seen

        run = runs[key]
        assert run.info.status == "FINISHED"
        history = client.get_metric_history(run.info.run_id, "loss")
        assert [(one.step, one.value) for one in history] == list(enumerate(losses, 1))
        assert run.data.metrics["dev/all/official"] == official(record)
        assert run.data.params["train.epochs"] == "3"
        assert {name: run.data.tags[name] for name in ("study", "variant", "seed")} == {
            "study": "study",
            "variant": record.variant,
            "seed": "0",
        }
        assert not {"mlflow", "tensorboard"} & json.loads(record.provenance)["scale"].keys()


@pytest.mark.slow
@NEEDS_MLFLOW
def test_loggers_that_fail_cost_the_study_nothing(workplace: Callable[[str], Workplace]) -> None:
    place = workplace(TWO)
    (place.folder / "file").write_text("no folder")
    nowhere = f"scale.tensorboard={place.folder / 'file'}", "scale.mlflow=http://127.0.0.1:9"
    status, _, err = place.run("run", "--set", nowhere[0], "--set", nowhere[1])
    assert status == 0, err
    assert err.count("tensorboard: nothing more is logged there (NotADirectoryError") == 1
    assert err.count("mlflow: nothing more is logged there (MlflowException") == 1
    assert len(place.records()) == 2
