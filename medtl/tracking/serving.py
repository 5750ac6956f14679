"""Former name of `medtl.serving.handler`, imported by the script of models of version 0.1.

Such a model has its own code and uses it in a process that has not imported this package. In one
that has, the current code serves it.
"""

from medtl.serving.handler import ServedModel

__all__ = ["ServedModel"]
