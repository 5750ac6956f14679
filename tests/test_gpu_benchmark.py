"""The measurement of one device, small and on the processor."""

from __future__ import annotations

import re
import time

import pytest
from click.testing import CliRunner

from benchmarks.__main__ import benchmarks
from benchmarks.gpu import Pair, _Network, _part
from benchmarks.large_table import Rates, large_table

ROW = re.compile(r"  (\S.*?) {2,}([\d.e+-]+) +([\d.e+-]+) +([\d.]+)")


@pytest.mark.slow
def test_each_measurement_of_a_device_has_a_peer() -> None:
    asked = "--networks timm:test_vit --device cpu --size 64 --patients 24 --epochs 1 --originals 8"
    done = CliRunner().invoke(benchmarks, ["gpu", *asked.split()])

    assert done.exit_code == 0, done.output
    found = [row.groups() for line in done.stdout.splitlines() if (row := ROW.fullmatch(line))]
    assert [name for name, *_ in found] == [
        "frozen pass, images a second",
        "list of ten trials, seconds",
        "trial from head, a second",
        "trial from blocks.5, a second",
        "all layers, images a second",
        "all layers, peak memory in GB",
    ]
    for name, *numbers in found:
        ours, peer, ratio = map(float, numbers)
        is_cost = "seconds" in name or "memory" in name
        assert (peer / ours if is_cost else ours / peer) == pytest.approx(ratio, rel=0.02, abs=0.02)
    assert "112,120 images, one stage after the other: " in done.stdout
    assert "nan" not in done.stdout


@pytest.mark.slow
def test_parts_of_a_gpu_run_on_the_processor_without_effect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        _Network, "parts", lambda self: [(self._replayed, 60), (self._compiled_layers, 60)]
    )
    asked = "--networks timm:test_vit --device cpu --size 64 --patients 16 --epochs 1 --originals 8"
    done = CliRunner().invoke(benchmarks, ["gpu", *asked.split()])

    assert done.exit_code == 0, done.output
    assert "trial from head, cudagraphs, a second" in done.stdout
    assert "inductor, seconds of its start" in done.stdout


def test_a_part_that_fails_or_is_too_long_leaves_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def forever() -> None:
        while True:
            time.sleep(0.01)

    def broken() -> None:
        raise RuntimeError("CUDA error:\nno kernel image")

    end = time.monotonic() + 60
    assert not _part("_forever", 1.1, end, forever)
    assert not _part("_broken", 9, end, broken)
    assert not _part("_late", 9, time.monotonic() - 1, broken)
    assert _part("_fine", 9, end, lambda: None)
    assert capsys.readouterr().out.splitlines() == [
        "  forever: not completed in 1 s",
        "  broken: failed (RuntimeError: CUDA error: no kernel image)",
        "  late: not completed in 0 s",
    ]


def test_a_measurement_without_a_peer_has_no_ratio() -> None:
    assert Pair("all layers", 12.0, float("nan")).line.split() == ["all", "layers", "12", "-", "-"]
    assert Pair("peak", 2.0, 3.0, smaller_is_better=True).line.split()[-1] == "1.50"


def test_stages_of_a_large_table_add_up() -> None:
    rates = Rates(decoded=1000.0, read=400e6, written=200e6, file=0.4e6)
    total, *stages = large_table(rates, passed=2000.0, kept=100e3, trained=100_000.0)

    # 112.1 s of reading, 112.1 of decoding, 56.1 in the pass, 56.1 of writing, 23.5 of training
    assert total.endswith("0.10 h")
    minutes = [float(re.search(r"([\d.]+) min", line)[1]) for line in stages]
    assert minutes == [1.9, 1.9, 0.9, 0.9, 0.4]
    assert [line.split()[-1] for line in stages] == ["31%", "31%", "16%", "16%", "7%"]
