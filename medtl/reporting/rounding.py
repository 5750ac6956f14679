"""Numbers as text, rounded without a claim that they do not support."""

from __future__ import annotations


def confidence_text(confidence: float) -> str:
    """Formats a confidence, never as exactly 0 or 1.

    >>> [confidence_text(value) for value in (0.00001, 0.42, 0.99999)]
    ['< 0.001', '0.420', '> 0.999']
    """
    if confidence < 0.0005:
        return "< 0.001"
    return "> 0.999" if confidence > 0.9995 else f"{confidence:.3f}"
