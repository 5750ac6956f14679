"""A bare FastAPI app around a model's network, to tell what `medtl` adds to an answer costs.

One route: the bytes of an image file that Pillow reads in, the class and its probability out. It
has no base64, no JSON to read, no DICOM, no calibration, no operating point, no `in_domain`, no
heat map, no batches and no limits.
"""

from __future__ import annotations

import io
import os

import numpy as np
import torch
from fastapi import FastAPI, Request
from PIL import Image
from starlette.concurrency import run_in_threadpool

from medtl.imaging.pixels import square
from medtl.networks.preprocessing import network_input, unit_images
from medtl.tracking.logged_model import load_bundle

MODEL = "BARE_MODEL"  # the environment variable with the model's URI


def make() -> FastAPI:
    """Builds the app for uvicorn."""
    bundle = load_bundle(os.environ[MODEL])

    @torch.inference_mode()
    def scored(file: bytes) -> dict[str, object]:
        with Image.open(io.BytesIO(file)) as image:
            pixels = np.array(square(np.asarray(image.convert("L")), bundle.image_size))
        tensor = network_input(unit_images(pixels[None]), bundle.preprocessing)
        probabilities = bundle.network(tensor)[0].softmax(0)
        best = int(probabilities.argmax())
        return {"label": bundle.classes[best], "probability": float(probabilities[best])}

    app = FastAPI()

    @app.get("/ping")
    def ping() -> None:
        """Answers as soon as the app can."""

    @app.post("/")
    async def answer(request: Request) -> dict[str, object]:
        return await run_in_threadpool(scored, await request.body())

    return app
