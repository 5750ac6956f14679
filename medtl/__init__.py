"""medtl: transfer learning for medical images, found, tracked, promoted and served."""

import os

__version__ = "0.1.0"

# MLflow reads this when it is imported, and hospitals do not accept usage telemetry
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
