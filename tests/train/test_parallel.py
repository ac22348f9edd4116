"""Two processes under torchrun give what one process gives with the double batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rtgan.train.data import generated_corpus
from rtgan.train.loop import Trainer, load_checkpoint, parse_config


def test_two_processes_equal_one_with_the_double_batch(
    tiny: dict[str, Any], adversary: dict[str, Any], tmp_path: Path
) -> None:
    if not torch.distributed.is_available():
        pytest.skip("this torch has no distributed part")
    tiny["losses"] |= {"voice": {"weight": 0.1}, "stft": {"n_fft": [256]}}
    tiny |= {"steps": 3, "batch": 3, "balance": True, "learning_rate": 1e-4}
    # with hinge, the gradient of the last bias is at first 0 but for rounding, which Adam would blow up to full size
    tiny["adversary"] = adversary | {"start_step": 0, "loss": "least-squares"}
    tiny |= {"develop": {"every_steps": 3, "mixes": 1, "metric": "loss"}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "rtgan", "train", str(tmp_path / "tiny.yaml"), "--out", str(tmp_path / "two")]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("3 of 3 steps done") == 1  # one process talks

    Trainer(parse_config(tiny | {"batch": 6}, "tiny.yaml"), generated_corpus(), tmp_path / "one").run(progress=False)
    Trainer(parse_config(tiny, "tiny.yaml"), generated_corpus(), tmp_path / "half").run(progress=False)
    one, two, half = (load_checkpoint(tmp_path / name) for name in ("one", "two", "half"))
    assert two["processes"] == 2 and two["develop"].keys() == one["develop"].keys()

    def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
        return max(float((a[k].float() - b[k].float()).abs().max()) for k in a)

    for part in ("net", "ema"):
        # what running mean and variance of the batch would betray, and the weights with them
        assert distance(one[part], two[part]) < 2e-5 < 1e-4 < distance(one[part], half[part])
    rival = [content["adversary"]["net"] for content in (one, two, half)]
    assert distance(rival[0], rival[1]) < 2e-5 < 1e-4 < distance(rival[0], rival[2])
    for name, norm in one["balancer"]["norms"].items():
        assert two["balancer"]["norms"][name] == pytest.approx(norm, rel=1e-3)
