"""Worker processes on one machine, and Ray."""
