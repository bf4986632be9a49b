"""Running trials with Ray: the only package that imports it. What is read when Ray is imported is set here."""

import os
from pathlib import Path

# no usage reports; Tune's own progress boxes and log files are not wanted
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# raysd's own queue says how many trials there are at once; Tune asks for one beyond those that run
os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", "100000")
# Ray imports MLflow where it is installed: no usage reports, no notes, and no long wait for a server that is gone
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
if not os.environ.get("RAY_ADDRESS"):
    # a Ray of our own listens on 127.0.0.1 only. Ray has this for macOS and Windows under a name of that time; asked
    # for by `_node_ip_address`, it would put the machine's outer address in its place
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
try:
    Path.home()
except RuntimeError:  # Ray asks for one when it is imported, though nothing is kept there
    os.environ["HOME"] = os.devnull
