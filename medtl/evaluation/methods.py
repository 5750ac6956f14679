"""The methods that draw heat maps, by name."""

from __future__ import annotations

GRAD_CAM, OCCLUSION, INTEGRATED_GRADIENTS = "grad_cam", "occlusion", "integrated_gradients"
SPOKEN = {
    GRAD_CAM: "Grad-CAM",
    OCCLUSION: "occlusion",
    INTEGRATED_GRADIENTS: "integrated gradients",
}
METHODS = tuple(SPOKEN)
