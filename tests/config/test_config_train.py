from __future__ import annotations

import pytest

from r1ranker.config import RewardConfig
from r1ranker.rewards import Reward


def test_the_papers_reward_is_the_plain_sum() -> None:
    reward = Reward(0.1, -0.7, -1.0, -0.25)
    assert RewardConfig().total(reward) == reward.total
    # 0.2 - 0.35 + 0 - 0.75
    assert RewardConfig(answer=2, coverage=0.5, format=0, tags=3).total(reward) == pytest.approx(-0.9)
