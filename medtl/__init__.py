"""medtl: transfer learning for medical images, found, tracked, promoted and served."""

import os

__version__ = "0.1.0"

# MLflow and Ray read these when they are imported, and hospitals do not accept usage telemetry
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# MLflow's bar for each artifact that it reads would drown what a command prints
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# OpenMP reads this when torch is imported. Its threads otherwise wait by spinning, and on a shared
# machine a training step then takes ten times as long as it computes
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
