"""Learning from whole eliminations: an exclusion's credit takes in what follows it. PPO, GRPO and GiGPO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from r1ranker.config import RunConfig
from r1ranker.llm.packing import Pack
from r1ranker.rankers import IRanker
from r1ranker.rl.advantages import gae, gigpo_advantages, trajectory_advantages
from r1ranker.rl.eliminations import Exclusion, eliminate, elimination_sampling, kept_turns
from r1ranker.rl.metrics import Averages
from r1ranker.rl.policy import Policy
from r1ranker.rl.replies import Group, Reply, RewardFunction, watch_spread
from r1ranker.rl.sampled import Sampled
from r1ranker.rl.states import State
from r1ranker.types import Prompt


class Trajectories(Sampled):
    """A step: `group_size` eliminations from each state, and updates over (some of) their turns.

    Turns with the same prompt are one group, whichever elimination they are from.
    """

    ranker: IRanker

    def __init__(
        self, policy: Policy, ranker: IRanker, config: RunConfig, reward: RewardFunction | None = None
    ) -> None:
        super().__init__(policy, ranker, config, reward)
        self._runs: list[list[Exclusion]] = []
        self._rewards: list[Tensor] = []
        self._replies: list[list[Reply]] = []
        self._places: list[list[tuple[int, int]]] = []

    def updates(self, states: Sequence[State], averages: Averages, step: int) -> list[list[int]]:
        """Roll out, judge and give credit to all turns; returns the minibatches of those that are learned from."""
        super().updates(states, averages, step)
        self._keep_some(step)
        return self._minibatches(step)

    def roll_out(self, states: Sequence[State], averages: Averages, step: int) -> list[Group]:
        """Eliminate and judge; a group has the turns with the same prompt."""
        starts = [state for state in states for _ in range(self.config.train.group_size)]
        sampling = elimination_sampling(self.config, step)
        self._runs = eliminate(starts, self.ranker, self.policy.llm, self._request, sampling)
        self._rewards, self._replies = [], []
        number = 0
        places: dict[Prompt, list[tuple[int, int]]] = {}
        for k, run in enumerate(self._runs):
            rewards = [self._judge(turn.state, turn.parsed, turn.completion) for turn in run]
            self._rewards.append(torch.tensor([self.config.reward.total(reward) for reward in rewards]))
            self._replies.append(
                [
                    Reply(number + t, turn.request, turn.completion, reward)
                    for t, (turn, reward) in enumerate(zip(run, rewards, strict=True))
                ]
            )
            number += len(run)
            averages.add("turns", len(run))
            averages.add("elimination_reward", float(self._rewards[k].sum()))
            for t, (turn, reward) in enumerate(zip(run, rewards, strict=True)):
                self._watch(reward, turn.parsed, turn.completion, averages)
                places.setdefault(turn.request.prompt, []).append((k, t))
        totals, size = [float(own.sum()) for own in self._rewards], self.config.train.group_size
        for begin in range(0, len(totals), size):
            watch_spread(totals[begin : begin + size], averages)
        self._places = list(places.values())
        return [self._group(own) for own in self._places]

    def _group(self, places: Sequence[tuple[int, int]]) -> Group:
        turns = [self._runs[k][t] for k, t in places]
        trunk = self.policy.llm.chat.encode(turns[0].request.prompt)
        return Group(
            turns[0].state,
            Pack(trunk, [turn.completion.token_ids for turn in turns]),
            [turn.parsed for turn in turns],
            [float(self._rewards[k][t]) for k, t in places],
            [self._replies[k][t] for k, t in places],
        )

    def _assign_credit(self, averages: Averages) -> None:
        train = self.config.train
        if self.critic is None:
            size = train.group_size
            advantages = [a for k in range(0, len(self._runs), size) for a in self._compared(k, k + size, averages)]
            self._spread("advantages", advantages)
            return
        values = self._values()
        parts = [
            gae(rewards, own, train.turn_gamma, train.gae_lambda)
            for rewards, own in zip(self._rewards, values, strict=True)
        ]
        self._spread("advantages", [advantages for advantages, _ in parts])
        self._spread("returns", [returns for _, returns in parts])
        self._whiten(averages)

    def _compared(self, begin: int, end: int, averages: Averages) -> list[Tensor]:
        """The advantages of an example's eliminations, (K,) each."""
        train, rewards = self.config.train, self._rewards[begin:end]
        averages.add("reward_std", float(torch.stack([own.sum() for own in rewards]).std(correction=0)))
        if train.credit == "trajectory":
            return trajectory_advantages(rewards, train.turn_gamma, scale=self._scale)
        anchors = [[turn.state.remaining for turn in run] for run in self._runs[begin:end]]
        return gigpo_advantages(rewards, anchors, train.turn_gamma, train.step_weight, scale=self._scale)

    def _values(self) -> list[Tensor]:
        """The critic's value at the beginning of each turn's completion, (K,) of each elimination."""
        values = [torch.zeros_like(rewards) for rewards in self._rewards]
        for group, places in zip(self._groups, self._places, strict=True):
            for (k, t), own in zip(places, torch.split(group.old_values.cpu(), group.lengths), strict=True):
                values[k][t] = own[0]
        return values

    def _spread(self, name: Literal["advantages", "returns"], turns: Sequence[Tensor]) -> None:
        """Set what each turn got, (K,) of each elimination, in the groups: the same for all tokens of a completion."""
        for group, places in zip(self._groups, self._places, strict=True):
            own = torch.stack([turns[k][t] for k, t in places])
            spread = torch.repeat_interleave(own, torch.tensor(group.lengths))
            setattr(group, name, spread.to(self.policy.device))

    def _keep_some(self, step: int) -> None:
        """Drop the turns that are not learned from; their rewards have had their share in the others' credit."""
        kept = kept_turns([len(run) for run in self._runs], self.config, step, self.config.train.group_size)
        chosen = [[n for n, (k, t) in enumerate(places) if t in kept[k]] for places in self._places]
        self._groups = [group.only(own) for group, own in zip(self._groups, chosen, strict=True) if own]
