"""Normalisation of images where the file of the weights cannot say it: `normalise`."""

from __future__ import annotations

from dataclasses import replace

from medtl.errors import ParameterError
from medtl.networks.preprocessing import Preprocessing
from medtl.networks.weights import torchxrayvision

AUTO = "auto"
CHANNELS = 3
_NAMED = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": ((0.0,), (1.0,)),
    "xrv": ((torchxrayvision.MEAN,), (torchxrayvision.STD,)),
}
_ALLOWED = (
    f"{AUTO}, {', '.join(_NAMED)}, or MEAN/STD of images from 0 to 1, each one number or three: "
    "0.5/0.25 or 0.5,0.5,0.5/0.2,0.2,0.2"
)


def normalised_as(expected: Preprocessing, normalise: str) -> Preprocessing:
    """Returns the preprocessing with the normalisation of the parameter `normalise`.

    `auto` changes nothing. `imagenet` and `unit` (values from 0 to 1) are those of most networks,
    `xrv` is torchxrayvision's, from -1024 to 1024.

    Raises:
        ParameterError: `normalise` has none of the forms.
    """
    if normalise == AUTO:
        return expected
    mean, std = _NAMED.get(normalise) or _numbers(normalise)
    repeats = (CHANNELS // len(mean), CHANNELS // len(std))
    return replace(expected, mean=mean * repeats[0], std=std * repeats[1])


def check_normalise(normalise: str) -> None:
    """Raises `ParameterError` if the parameter `normalise` has no known form."""
    if normalise != AUTO and normalise not in _NAMED:
        _numbers(normalise)


def grey(expected: Preprocessing) -> Preprocessing:
    """Returns the preprocessing with the mean of its channels in each of them."""
    mean, std = (sum(each) / len(each) for each in (expected.mean, expected.std))
    return replace(expected, mean=(mean,) * CHANNELS, std=(std,) * CHANNELS)


def _numbers(normalise: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        mean, std = (
            tuple(float(each) for each in half.split(",")) for half in normalise.split("/")
        )
    except ValueError as error:
        raise ParameterError("normalise", normalise, _ALLOWED) from error
    # a NaN is above no bound
    if not all(
        len(each) in (1, CHANNELS) and all(abs(number) < 1e6 for number in each)
        for each in (mean, std)
    ) or not all(number > 0 for number in std):
        raise ParameterError("normalise", normalise, _ALLOWED)
    return mean, std
