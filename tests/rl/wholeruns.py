"""What the tests of whole runs compare: weights, and rows without their times."""

from __future__ import annotations

import torch
from torch import Tensor

from r1ranker.rl.trainer import Trainer

TIMES = {"seconds", "tokens_per_second"}


def weights(trainer: Trainer) -> dict[str, Tensor]:
    out = {n: p.detach().clone() for n, p in trainer.policy.model.named_parameters()}
    if trainer.training.critic is not None:
        out |= {f"critic.{n}": p.detach().clone() for n, p in trainer.training.critic.named_parameters()}
    return out


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-6, rtol=0, msg=name)


def untimed(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
