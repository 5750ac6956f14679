"""medtl: transfer learning for medical images, found, tracked, promoted and served."""

__version__ = "0.1.0"
