"""Loads a data set: reads its table, decodes its images, checks and splits it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from medtl.data.dataset import Dataset, digest
from medtl.data.dicom_metadata import filled_in, read_headers
from medtl.data.duplicates import check_duplicates, groups_that_stay_together
from medtl.data.few_cases import FOLDS, few_cases
from medtl.data.label_encoding import ABSENT, NOT_KNOWN, PRESENT, encode_findings
from medtl.data.manifest import CASE, Table, incomplete, read_table, with_frames
from medtl.data.patients import likely_patients
from medtl.data.pixel_cache import Pixels, decode_all
from medtl.data.reader_votes import VOTES, soft_targets
from medtl.data.splits import SPLITS, missing_splits, patient_groups, with_splits_of_measured
from medtl.errors import MedtlError
from medtl.imaging.rendering import Rendering
from medtl.settings.data import CARVED, SOFT, Reading


def load(
    data: str,
    image_size: int | Rendering,
    seed: int,
    reading: Reading = Reading(),  # noqa: B008
) -> Dataset:
    """Reads, decodes, checks and splits a data set.

    Args:
        data: an embedded set by its name, a folder or a CSV file (see `read_table`).
        image_size: side of the squares in pixels, or the rendering of the files.
        seed: of the splits that have to be drawn.
        reading: which labels are positive; what is done about duplicates, unreadable and missing
            images, and paths out of the folder; which frames of a file are samples.

    Raises:
        MedtlError: the data cannot be learned from; the message names what and where.
    """
    table = read_table(data, reading)
    notes = _positive(table, reading.positive) + table.notes + _missing(table, reading.missing)
    headers = read_headers(table.files())
    table, from_headers = filled_in(table, headers)
    notes += _in_paths(table, reading.patient_pattern)
    table, from_frames = with_frames(table, headers["frames"].to_numpy(), reading.frames)
    notes += from_headers + from_frames
    pixels = decode_all(table, image_size)
    if pixels.rendering.line:
        notes += (f"the network gets the images with {pixels.rendering.line}",)
    notes += _unreadable(table, pixels, reading.unreadable) + pixels.notes
    frame = pd.concat([table.frame, _a_row_each(pixels.index, len(table.frame))], axis=1)
    frame = frame[frame.pop("reason") == ""]
    # Sorted by content, so that names and the order of a CSV have no effect: equal
    # fingerprints mean equal images in equal order.
    frame = frame.sort_values(["content", "label", "split", table.naming])
    images = len(pixels.index) // len(table.frame)  # of a sample
    rows = frame.index.to_numpy(np.int64)[:, None] * images + np.arange(images)
    table = dataclasses.replace(table, frame=frame.reset_index(drop=True))
    patients = patient_groups(table.frame)
    missing = missing_splits(table.frame)
    drawn = tuple(name for name in missing if _is_drawn(name, reading))
    if "test" not in missing and reading.holdout != CARVED:
        notes += (f"holdout={reading.holdout:g} is not used: the data has a test split",)
    content = table.frame["content"].to_numpy()
    groups = groups_that_stay_together(patients, content)
    table, measured = with_splits_of_measured(table, seed, groups, reading.holdout)
    if not measured.all():
        table = dataclasses.replace(table, frame=table.frame[measured].reset_index(drop=True))
        rows, patients, groups = rows[measured], patients[measured], groups[measured]
    frame = table.frame
    notes += _drawn(frame, drawn, reading) + _folds_not_used(frame, reading)
    notes = check_duplicates(table.name, frame, reading.duplicates) + notes
    classes, labels, from_labels = _learnable(table) if table.multi_label else _one_label(table)
    shares = None
    if reading.readers == SOFT:
        votes = frame.pop(VOTES) if VOTES in frame else None
        shares, line = soft_targets(votes, classes, table.multi_label, int((~measured).sum()))
        notes += (line,)
    splits = {name: np.flatnonzero(frame["split"] == name) for name in SPLITS}
    if len(splits["train"]):
        parts = splits
        if reading.folds:
            pool = np.concatenate([splits["train"], splits["valid"]])
            parts = {FOLDS: pool, "test": splits["test"]}
        notes += few_cases(labels, classes, groups, parts)
    return Dataset(
        name=table.name,
        classes=classes,
        frame=frame,
        labels=labels,
        patients=patients,
        groups=groups,
        splits=splits,
        pixels=pixels,
        rows=rows,
        modalities=table.modalities,
        fingerprint=_fingerprint(frame),
        notes=from_labels + notes,
        source=table.source,
        ordinal=bool(reading.ordinal),
        shares=shares,
    )


def _learnable(table: Table) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """Returns K findings, their values (int8 [N, K], see `encode_findings`), and notes.

    A finding needs a training image that has it and one that lacks it; others are left out and
    named. Evaluation-only data keeps all.

    Args:
        table: with findings, and a split in every row.

    Raises:
        MedtlError: no finding is left, or none can be scored in some split.
    """
    labels = encode_findings(table.frame["label"], table.classes)
    split = table.frame["split"].to_numpy()
    kept = np.full(len(table.classes), True)
    if (split == "train").any():
        kept = _told_apart(labels[split == "train"])
        for name in SPLITS:
            here = labels[split == name]
            if len(here) and not (kept & _told_apart(here)).any():
                raise MedtlError(
                    f"{table.name}: there is no finding that some images of the {name} split have, "
                    "and others not; add images of more patients, or give the splits yourself"
                )
    named, labels = np.array(table.classes, object), labels[:, kept]
    findings = tuple(named[kept])
    lines = _lines(labels, named[~kept].tolist())
    for name in SPLITS[1:]:
        here = labels[split == name]
        there = (here == PRESENT).any(axis=0)
        missing = [each for each, shown in zip(findings, there, strict=True) if not shown]
        if len(here) and missing:
            lines.append(f"no image of the {name} split has {', '.join(missing)}: not scored there")
    return findings, labels, tuple(lines)


def _told_apart(labels: np.ndarray) -> np.ndarray:
    """Flags the findings that some images have and others lack: bool [K]."""
    return (labels == PRESENT).any(axis=0) & (labels == ABSENT).any(axis=0)


def _lines(labels: np.ndarray, left_out: list[str]) -> list[str]:
    several = int(((labels == PRESENT).sum(axis=1) > 1).sum())
    unknown = int((labels == NOT_KNOWN).sum())
    lines = [
        f"multi-label: {labels.shape[1]} findings, of which an image has any number "
        f"({several} of {len(labels)} images have several)"
    ]
    if unknown:
        lines.append(f"{unknown} labels are unknown, and count nowhere")
    if left_out:
        lines.append(
            f"findings left out, in which training images do not differ: {', '.join(left_out)}"
        )
    return lines


def _one_label(table: Table) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    codes = pd.Categorical(table.frame["label"], table.classes).codes
    return table.classes, codes.astype(np.int64), ()


def _positive(table: Table, positive: str) -> tuple[str, ...]:
    if not positive:
        return ()
    called = table.classes[1]
    count = (table.frame["label"] == called).sum()
    return (f"positive={positive}: {count} of {len(table.frame)} are {called}, all else negative",)


def _in_paths(table: Table, pattern: str) -> tuple[str, ...]:
    """Returns a line on likely patient names in the paths if no patient is given."""
    likely = None if pattern or table.modalities else likely_patients(table.frame)
    return (likely.line(),) if likely else ()


def _missing(table: Table, missing: str) -> tuple[str, ...]:
    lacking = incomplete(table.frame, table.modalities)
    if not lacking:
        return ()
    named = f"{'; '.join(lacking[:3])}{'; ...' if len(lacking) > 3 else ''}"
    line = f"{len(lacking)} {'image is' if len(lacking) == 1 else 'images are'} missing ({named})"
    if missing == "refuse":
        raise MedtlError(
            f"{table.name}: {line}; add them, leave the cases out, or pass missing=mask"
        )
    return (f"{line}, masked",)


def _unreadable(table: Table, pixels: Pixels, unreadable: str) -> tuple[str, ...]:
    bad = pixels.index.index[pixels.index["reason"] != ""]
    if not len(bad):
        return ()
    paths = table.paths()
    named = [f"{paths[image]}: {pixels.index['reason'][image]}" for image in bad[:3]]
    line = (
        f"{len(bad)} of {len(paths)} images cannot be read "
        f"({'; '.join(named)}{'; ...' if len(bad) > 3 else ''})"
    )
    if unreadable == "refuse":
        raise MedtlError(f"{table.name}: {line}; mend or remove them, or pass unreadable=skip")
    return (f"{line}, skipped",)


def _a_row_each(index: pd.DataFrame, count: int) -> pd.DataFrame:
    """Builds the image columns, one row per sample; values of several images are joined."""
    if len(index) == count:
        return index
    case = np.arange(len(index)) // (len(index) // count)
    joined = index.astype(str).groupby(case).agg(" ".join)
    return joined.assign(reason=joined["reason"].str.strip())


def _is_drawn(split: str, reading: Reading) -> bool:
    """Returns whether a missing split is drawn here; folds have validation parts of their own."""
    return bool(reading.holdout) if split == "test" else not reading.folds


def _folds_not_used(frame: pd.DataFrame, reading: Reading) -> tuple[str, ...]:
    """Returns a line on the column `fold` of a table where there is one training."""
    names = set(frame["fold"]) - {""} if "fold" in frame else set()
    if len(names) < 2 or reading.folds:
        return ()
    return (f"the column fold is not used: folds={len(names)} cross-validates by it",)


def _drawn(frame: pd.DataFrame, drawn: tuple[str, ...], reading: Reading) -> tuple[str, ...]:
    """Returns notes on drawn splits and on unknown patients."""
    samples = "cases" if CASE in frame else "images"
    if not (frame["split"] == "train").any():
        return (f"no {samples} are for training: this data can only be evaluated on",)
    lines = []
    if drawn:
        split: pd.Series = frame["split"]
        shown: tuple[str, ...] = SPLITS
        if reading.folds:
            split, shown = split.replace({"train": "folds", "valid": "folds"}), ("folds", "test")
        counts = ", ".join(f"{name} {(split == name).sum()}" for name in shown)
        unit = samples[:-1] if (frame["patient"] == "").all() else "patient"
        lines.append(f"{' and '.join(drawn)} drawn by {unit} ({counts} {samples})")
    unknown = int((frame["patient"] == "").sum())
    if unknown:
        lines.append(
            f"patients unknown for {unknown} of {len(frame)} {samples}, which count one each: "
            f"{samples} of one patient may be in two splits"
        )
    return tuple(lines)


def _fingerprint(frame: pd.DataFrame) -> str:
    lines = sorted((frame["content"] + " " + frame["split"] + " " + frame["label"]).tolist())
    return digest("\n".join(lines))
