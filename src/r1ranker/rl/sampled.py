"""PPO and GRPO on the sampled replies of single states."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from r1ranker.config import RunConfig
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rl.advantages import explained_variance, gae, grpo_advantages, reward_at_end, whiten
from r1ranker.rl.losses import ppo_loss, reference_kl, token_weights, value_loss
from r1ranker.rl.metrics import Averages
from r1ranker.rl.policy import Critic, Policy
from r1ranker.rl.replies import Group, RewardFunction, Rollouts, told_of
from r1ranker.rl.states import State


class Sampled(Rollouts):
    """A step: PPO or GRPO updates over sampled completions."""

    def __init__(
        self,
        policy: Policy,
        ranker: IRanker | DRanker,
        config: RunConfig,
        reward: RewardFunction | None = None,
    ) -> None:
        super().__init__(policy, ranker, config, reward)
        self.critic = Critic(policy, config.train.critic) if config.train.algorithm == "ppo" else None
        if config.train.kl_coef:
            policy.keep_reference()

    def updates(self, states: Sequence[State], averages: Averages, step: int) -> list[list[int]]:
        """Roll out and judge; returns the minibatches (indices of states) of all epochs."""
        self._groups = self.roll_out(states, averages, step)
        parts = self._minibatches(step)
        # With one update the policy that trains is the one that sampled: its own log-probs are the old ones.
        if self.critic is not None or len(parts) > 1:
            self._before()
        self._assign_credit(averages)
        self.replies = told_of(self._groups, self.config.train.log_completions)
        return parts

    @property
    def _scale(self) -> bool:
        """Whether advantages are divided by their group's deviation: GRPO's own way."""
        return self.config.train.scale_rewards is not False

    def _before(self) -> None:
        """Log-probs and values as they are before the first update, by the very pass that trains."""
        with torch.no_grad(), self.policy.compute():
            for micro in self._micro_batches(range(len(self._groups))):
                groups = [self._groups[k] for k in micro]
                batch, hidden, logprobs = self.policy.packed([g.pack for g in groups], self.config.train.temperature)
                sizes = [sum(g.lengths) for g in groups]
                for group, part in zip(groups, torch.split(logprobs.float(), sizes), strict=True):
                    group.old_logprobs = part
                if self.critic is not None:
                    for group, part in zip(groups, torch.split(self.critic(batch, hidden), sizes), strict=True):
                        group.old_values = part

    def _assign_credit(self, averages: Averages) -> None:
        if self.critic is None:
            for group in self._groups:
                rewards = torch.tensor(group.rewards)
                averages.add("reward_std", float(rewards.std(correction=0)))
                advantages = grpo_advantages(rewards, scale=self._scale)
                spread = torch.repeat_interleave(advantages, torch.tensor(group.lengths))
                group.advantages = spread.to(self.policy.device)
            return
        train = self.config.train
        for group in self._groups:
            parts = []
            for reward, values in zip(group.rewards, torch.split(group.old_values.cpu(), group.lengths), strict=True):
                token_rewards = reward_at_end(reward, len(values))
                parts.append(gae(token_rewards, values, train.gamma, train.gae_lambda))
            group.advantages = torch.cat([advantage for advantage, _ in parts]).to(self.policy.device)
            group.returns = torch.cat([returns for _, returns in parts]).to(self.policy.device)
        self._whiten(averages)

    def _whiten(self, averages: Averages) -> None:
        """PPO's advantages on one scale over the step, and how well the critic foretold the returns."""
        for group, advantages in zip(self._groups, whiten([g.advantages for g in self._groups]), strict=True):
            group.advantages = advantages
        values, returns = (torch.cat([getattr(g, name) for g in self._groups]) for name in ("old_values", "returns"))
        averages.add("explained_variance", explained_variance(values, returns))

    def _weights(self, group: Group) -> tuple[list[float], float]:
        train = self.config.train
        kept = [not (train.drop_cut_off and reply.completion.finish == "length") for reply in group.replies]
        return token_weights(group.lengths, kept, train.loss_aggregation, self.config.ranker.max_tokens)

    def _denominator(self, group: Group) -> float:
        return self._weights(group)[1]

    def _micro(self, groups: Sequence[Group], total: float, averages: Averages) -> None:
        train = self.config.train
        weighed = [self._weights(group) for group in groups]
        weights = torch.tensor([w for own, _ in weighed for w in own], device=self.policy.device)
        counted = sum(own for _, own in weighed)
        advantages = torch.cat([g.advantages for g in groups])
        with self.policy.compute():
            batch, hidden, logprobs = self.policy.packed([g.pack for g in groups], train.temperature)
            ref = self.policy.reference_logprobs(batch, train.temperature) if train.kl_coef else None
            values = self.critic(batch, hidden) if self.critic is not None else None
        before = torch.cat([g.old_logprobs for g in groups])
        old = before if len(before) else logprobs.detach()
        lengths = [n for group in groups for n in group.lengths] if train.ratio == "reply" else None
        surrogate = ppo_loss(logprobs, old, advantages, train.clip_epsilon, train.clip_epsilon_high, lengths)
        loss = (weights * surrogate.per_token).sum()
        averages.add("approx_kl", float(surrogate.approx_kl), weight=len(old))
        averages.add("clipfrac", float(surrogate.clipfrac), weight=len(old))
        if ref is not None:
            kl = reference_kl(logprobs, ref)
            loss = loss + train.kl_coef * (weights * kl).sum()
            averages.add("kl", float(kl.detach().mean()), weight=len(old))
        if values is not None:
            old_values, returns = (torch.cat([getattr(g, name) for g in groups]) for name in ("old_values", "returns"))
            error = value_loss(values, old_values, returns, train.value_clip)
            loss = loss + (weights * error).sum()
            averages.add("value_loss", float(error.detach().mean()), weight=len(old))
        averages.count("tokens", batch.computed_tokens)
        if counted:
            averages.add("loss", float(loss.detach()) / counted, weight=counted)
        (loss / (total or 1.0)).backward()  # type: ignore[no-untyped-call]
