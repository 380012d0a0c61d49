"""Learning without thinking, where every candidate's label is scored and nothing is sampled.

`all_actions`, the exact policy gradient: an IRanker's action is an exclusion, which is judged by its own reward, by
what the whole elimination is expected to return (`credit = "trajectory"`) or by the nDCG that it is expected to end
with (`credit = "ndcg"`). A DRanker's is the next line of its list, and earns what that adds to nDCG@20, or what all
that is still to be written is expected to add (`credit = "ndcg"`).

`listwise`, supervised and without a reward, to compare with: the best candidates are to be excluded last by an IRanker,
and written next by a DRanker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor

from r1ranker.config import RunConfig
from r1ranker.llm.packing import Pack
from r1ranker.llm.tree import grow_trees, tree_size
from r1ranker.rankers import DRanker, IRanker
from r1ranker.rewards import NDCG_CUTOFF, exclusion_values, listing_gains, listing_values
from r1ranker.rl.losses import all_actions_loss, categorical_kl, elimination_loss, entropy, listwise_loss
from r1ranker.rl.metrics import Averages
from r1ranker.rl.places import expected_listing, expected_ndcg
from r1ranker.rl.policy import Policy, even_parts, split_by_tokens
from r1ranker.rl.states import State, request_of


class Scored:
    """Computes gradients for a step's states; one optimizer step each call."""

    replies: Sequence[Mapping[str, Any]] = ()

    def __init__(self, policy: Policy, ranker: IRanker | DRanker, config: RunConfig) -> None:
        self.policy, self.ranker, self.config = policy, ranker, config
        if config.train.kl_coef:
            policy.keep_reference()

    def updates(self, states: Sequence[State], averages: Averages, step: int) -> list[list[int]]:  # noqa: ARG002
        """The step's minibatches, as indices of states."""
        return even_parts(range(len(states)), self.config.train.minibatch_states)

    def backward(self, states: Sequence[State], part: Sequence[int], averages: Averages) -> None:
        """Accumulate the gradients of one minibatch, in micro-batches.

        Neighbours of one example stand in one row: what their prompts begin with is computed once.
        """
        limit = self.config.train.micro_tokens
        rows: list[list[Pack]] = []
        for _, own in groupby((states[k] for k in part), key=lambda state: state.example.id):
            rows += grow_trees([self._pack(state) for state in own], limit)
        ends = list(accumulate(len(row) for row in rows))
        for micro in split_by_tokens([tree_size(row) for row in rows], limit):
            chosen = [states[part[n]] for k in micro for n in range(ends[k] - len(rows[k]), ends[k])]
            self._micro(chosen, [rows[k] for k in micro], len(part), averages)

    def _pack(self, state: State) -> Pack:
        return self.policy.llm.choice_pack(request_of(self.ranker, state))

    def _values(self, state: State) -> tuple[float, ...]:
        """What each of the candidates that are left earns."""
        if isinstance(self.ranker, DRanker):
            return listing_values(state.example.relevance, state.remaining, len(state.excluded or ()))
        return exclusion_values(state.example.relevance, state.remaining)

    def _imitation_loss(self, scores: Tensor, rewards: Tensor) -> Tensor:
        """An IRanker names what is worst: what it is least likely to exclude is the best."""
        if isinstance(self.ranker, DRanker):
            return listwise_loss(scores, rewards)
        return listwise_loss(-scores, rewards.max() - rewards)

    def _return(self, state: State, scores: Tensor, rewards: Tensor) -> Tensor:
        """What a whole elimination, or the rest of a list, is expected to earn if all of it goes by these scores."""
        if isinstance(self.ranker, DRanker):
            gains = torch.tensor(listing_gains(state.example.relevance, state.remaining)).to(scores)
            share = expected_listing(scores, gains, len(state.excluded or ()), NDCG_CUTOFF)
        elif self.config.train.credit == "ndcg":
            share = expected_ndcg(scores, rewards.max() - rewards)
        else:
            share = -elimination_loss(scores, rewards)
        return share * self.config.reward.answer

    def _micro(self, states: Sequence[State], rows: Sequence[Sequence[Pack]], total: int, averages: Averages) -> None:
        train = self.config.train
        # What a constrained answer is worth is its log-probability already.
        sharpness = 1 / train.temperature if self.ranker.constrained else self.config.ranker.sharpness
        with self.policy.compute():
            batch, worth = self.policy.packed_trees(rows)
            ref_logits = None
            if train.kl_coef:
                ref = self.policy.reference_scores(batch, rows)
                ref_logits = torch.split(ref * sharpness, list(batch.branch_counts))
        logits = torch.split(worth * sharpness, list(batch.branch_counts))
        loss = worth.new_zeros(())
        for k, (state, scores) in enumerate(zip(states, logits, strict=True)):
            values = self._values(state)
            rewards = torch.tensor(values, device=scores.device) * self.config.reward.answer
            expected = -all_actions_loss(scores, rewards)
            told = {"reward": float(expected.detach()), "reward_uniform": float(rewards.mean())}
            if train.algorithm == "listwise":
                learned = -self._imitation_loss(scores, rewards)
            elif train.credit != "turn":
                learned = self._return(state, scores, rewards)
                told["return"] = float(learned.detach())
            else:
                learned = expected / (float(rewards.std(correction=0)) or 1.0) if train.scale_rewards else expected
            spread = entropy(scores)
            loss = loss - learned - train.entropy_coef * spread
            # Chance differs from state to state: what a uniform policy earns says how far this one is above it.
            for of in ("", f"/{state.origin}") if state.origin else ("",):
                for name, value in told.items():
                    averages.add(f"{name}{of}", value)
            averages.add("entropy", float(spread.detach()))
            averages.add("choices", len(values))
            if ref_logits is not None:
                kl = categorical_kl(scores, ref_logits[k])
                loss = loss + train.kl_coef * kl
                averages.add("kl", float(kl.detach()))
        averages.count("tokens", batch.computed_tokens)
        averages.add("loss", float(loss.detach()) / len(states), weight=len(states))
        (loss / total).backward()  # type: ignore[no-untyped-call]
