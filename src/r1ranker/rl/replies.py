"""Sampled replies: completions of each state, judged, as packs whose gradients are taken in micro-batches."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor

from r1ranker.config import RunConfig
from r1ranker.errors import InputError
from r1ranker.llm.packing import Pack
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rewards import Reward, exclusion_reward, ranking_reward
from r1ranker.rl.advantages import all_alike
from r1ranker.rl.metrics import Averages
from r1ranker.rl.policy import Policy, even_parts, pack_size, split_by_tokens
from r1ranker.rl.states import State, request_of
from r1ranker.types import Completion, ParsedAnswer, Request, Sampling

RewardFunction = Callable[[State, ParsedAnswer, Completion], Reward]
"""What a sampled reply earns, in its parts: of the state, what the reply says, and the reply itself."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A sampled reply and what it earned. number: its place among those of its step, from 0."""

    number: int
    request: Request
    completion: Completion
    reward: Reward


@dataclass
class Group:
    """Completions of one state, as one pack. Tensors are flat over the pack's tokens, branch by branch: (N,).

    rewards: what of each completion's reward is learned from. replies: what the step's log tells of them.
    """

    state: State
    pack: Pack
    parsed: list[ParsedAnswer]
    rewards: list[float]
    replies: list[Reply]
    old_logprobs: Tensor = field(default_factory=lambda: torch.empty(0))
    old_values: Tensor = field(default_factory=lambda: torch.empty(0))
    advantages: Tensor = field(default_factory=lambda: torch.empty(0))
    returns: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def lengths(self) -> list[int]:
        """Tokens of each completion."""
        return [len(branch) for branch in self.pack.branches]

    def only(self, places: Sequence[int]) -> Group:
        """The group with the completions at these places alone."""

        def chosen(tensor: Tensor) -> Tensor:
            parts = torch.split(tensor, self.lengths) if len(tensor) else ()
            return torch.cat([parts[k] for k in places]) if parts else tensor

        return Group(
            self.state,
            Pack(self.pack.trunk, [self.pack.branches[k] for k in places]),
            [self.parsed[k] for k in places],
            [self.rewards[k] for k in places],
            [self.replies[k] for k in places],
            *map(chosen, (self.old_logprobs, self.old_values, self.advantages, self.returns)),
        )


class Rollouts:
    """Samples `group_size` completions of each state, judges them, and takes gradients over a step's groups.

    What of them is learned is for those who inherit to say.

    reward: judges in place of the paper's rewards; [reward] weighs its parts all the same.
    """

    def __init__(
        self,
        policy: Policy,
        ranker: IRanker | DRanker,
        config: RunConfig,
        reward: RewardFunction | None = None,
    ) -> None:
        self.policy, self.ranker, self.config, self.reward = policy, ranker, config, reward
        self.replies: Sequence[Mapping[str, Any]] = ()
        self._groups: list[Group] = []

    def roll_out(self, states: Sequence[State], averages: Averages, step: int) -> list[Group]:
        """Sample and judge; all completions of a state share its prompt."""
        train = self.config.train
        requests = [self._request(state) for state in states]
        sampling = Sampling(
            temperature=train.temperature,
            max_tokens=self.config.ranker.max_tokens,
            seed=random.Random(f"{self.config.seed}/rollout/{step}").getrandbits(62),
        )
        repeated = [request for request in requests for _ in range(train.group_size)]
        completions = self.policy.llm.complete(repeated, sampling)
        groups = []
        for k, (state, request) in enumerate(zip(states, requests, strict=True)):
            own = completions[k * train.group_size : (k + 1) * train.group_size]
            parsed = [self._parse(state, request, completion) for completion in own]
            rewards = [self._judge(state, *reply) for reply in zip(parsed, own, strict=True)]
            for judged in zip(rewards, parsed, own, strict=True):
                self._watch(*judged, averages)
            trunk = self.policy.llm.chat.encode(request.prompt)
            totals = [self.config.reward.total(reward) for reward in rewards]
            watch_spread(totals, averages)
            first = k * train.group_size
            replies = [Reply(first + n, request, *told) for n, told in enumerate(zip(own, rewards, strict=True))]
            groups.append(Group(state, Pack(trunk, [c.token_ids for c in own]), parsed, totals, replies))
        return groups

    def _request(self, state: State) -> Request:
        request = request_of(self.ranker, state)
        # Nothing is kept for a later turn: a training state has none. Choices are for scoring, not for sampling.
        return Request(request.prompt, stop=request.stop, answers=request.answers)

    def _parse(self, state: State, request: Request, completion: Completion) -> ParsedAnswer:
        if isinstance(self.ranker, DRanker):
            return self.ranker.parse(state.example, request, completion)
        return self.ranker.parse(state.example, state.remaining, request, completion)

    def _judge(self, state: State, parsed: ParsedAnswer, completion: Completion) -> Reward:
        """What the reply earns. Raises InputError where an own reward function gives no finite reward."""
        if self.reward is None:
            return self._reward(state, parsed)
        reward = self.reward(state, parsed, completion)
        if not isinstance(reward, Reward) or not math.isfinite(reward.total):
            raise InputError(
                f"example '{state.example.id}': the reward function gives {reward!r} for a reply: give a "
                "r1ranker.rewards.Reward of finite numbers"
            )
        return Reward(*map(float, astuple(reward)))  # NumPy's are no JSON

    def _reward(self, state: State, parsed: ParsedAnswer) -> Reward:
        if isinstance(self.ranker, DRanker):
            return ranking_reward(parsed, state.example.relevance, state.example.ids)
        return exclusion_reward(parsed, state.example.relevance, state.remaining)

    def _watch(self, reward: Reward, parsed: ParsedAnswer, completion: Completion, averages: Averages) -> None:
        averages.add("reward", self.config.reward.total(reward))
        averages.add("answer_reward", reward.answer)
        averages.add("format_reward", reward.format + reward.tags)
        averages.add("coverage_reward", reward.coverage)
        averages.add("well_formed", float(parsed.well_formed))
        averages.add("answered", float(bool(parsed.ids)))
        averages.add("completion_tokens", completion.completion_tokens)
        averages.add("cut_off", float(completion.finish == "length"))
        if tokens := len(completion.logprobs):
            averages.add("entropy_estimate", -sum(completion.logprobs) / tokens, weight=tokens)

    def _minibatches(self, step: int) -> list[list[int]]:
        """The indices of the step's groups, shuffled anew in every epoch."""
        out = []
        for epoch in range(self.config.train.epochs):
            order = list(range(len(self._groups)))
            random.Random(f"{self.config.seed}/minibatches/{step}/{epoch}").shuffle(order)
            out += even_parts(order, self.config.train.minibatch_states)
        return out

    def backward(self, states: Sequence[State], part: Sequence[int], averages: Averages) -> None:  # noqa: ARG002
        """Accumulate the gradients of one minibatch, in micro-batches."""
        total = sum(self._denominator(self._groups[k]) for k in part)
        for micro in self._micro_batches(part):
            self._micro([self._groups[k] for k in micro], total, averages)

    def _denominator(self, group: Group) -> float:
        """A group's part of what the minibatch's loss is divided by: its tokens, for a mean over tokens."""
        return sum(group.lengths)

    def _micro(self, groups: Sequence[Group], total: float, averages: Averages) -> None:
        """Accumulate the gradients of some groups of a minibatch, whose loss is divided by `total`."""
        raise NotImplementedError

    def _micro_batches(self, part: Sequence[int] | range) -> list[list[int]]:
        sizes = [pack_size(self._groups[k].pack) for k in part]
        return [[part[k] for k in micro] for micro in split_by_tokens(sizes, self.config.train.micro_tokens)]


def watch_spread(rewards: Sequence[float], averages: Averages) -> None:
    """Whether the rewards of completions that are compared are alike; one alone is compared with none."""
    if len(rewards) > 1:
        averages.add("groups_without_spread", float(all_alike(rewards)))


def told_of(groups: Sequence[Group], most: int) -> list[dict[str, Any]]:
    """The first `most` replies of a step, in the order of their numbers, as `completions.jsonl` tells them.

    advantage: None where none is given yet, or the tokens of the reply have different ones.
    """
    told = {}
    for group in groups:
        parts = torch.split(group.advantages, group.lengths) if len(group.advantages) else ()
        for k, reply in enumerate(group.replies):
            if reply.number < most:
                told[reply.number] = {
                    "example": group.state.example.id,
                    "prompt": reply.request.prompt.user,
                    "reply": reply.request.prompt.prefill + reply.completion.text,
                    "finish": reply.completion.finish,
                    "parts": asdict(reply.reward),
                    "reward": group.rewards[k],
                    "advantage": _only_value(parts[k]) if parts else None,
                }
    return [told[number] for number in sorted(told)]


def _only_value(values: Tensor) -> float | None:
    return float(values[0]) if bool((values == values[0]).all()) else None
