"""What a log shows of files that are downloaded."""

import io

from rich.console import Console

from raysd.transfers import TransferProgress


def test_a_log_gets_a_line_now_and_then_and_one_for_each_file() -> None:
    log = io.StringIO()
    with TransferProgress(Console(file=log, width=160), 3_000_000, heartbeat_seconds=0) as progress:
        progress.downloading("dev_fan.zip", 500_000, 2_000_000)  # was there before
        progress.downloading("dev_fan.zip", 2_000_000, 2_000_000)
        progress.unpacking("dev_fan.zip", 1, 2)
        progress.downloading("dev_valve.zip", 0, None)
        progress.ended("dev_fan.zip", "2 clips in [data]/fan")
        progress.ended("list.csv", "")
    lines = log.getvalue().splitlines()
    assert lines[0] == "0 bytes downloaded"
    assert lines[1].startswith("1.5 MB downloaded of 3.0 MB, about 0:00:0")
    assert lines[-1] == "dev_fan.zip: 2 clips in [data]/fan"
    assert len(lines) == 4


def test_a_quick_download_has_no_heartbeat() -> None:
    log = io.StringIO()
    with TransferProgress(Console(file=log, width=160), 0) as progress:
        progress.downloading("dev_fan.zip", 1, 2)
        progress.ended("dev_fan.zip", "2 clips")
    assert log.getvalue() == "dev_fan.zip: 2 clips\n"
