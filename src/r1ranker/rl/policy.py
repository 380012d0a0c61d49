"""The model that is trained: what is frozen, what it computes over packs, its reference and its critic."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from r1ranker.config import ModelConfig
from r1ranker.errors import ConfigError
from r1ranker.llm.load import fast_bfloat16, load_model
from r1ranker.llm.logprobs import branch_scores, token_logprobs
from r1ranker.llm.packing import Pack, PackedBatch, causal_lm, collate, decoder_blocks, packed_hidden
from r1ranker.llm.tied import look_up
from r1ranker.llm.transformers import TransformersLLM
from r1ranker.llm.tree import TreeBatch, collate_trees
from r1ranker.rl.adapter import begin_at, find_adapter, with_lora


def freeze_lower(model: nn.Module, layers: int) -> None:
    """Freeze the embeddings (and a head tied to them) and the first `layers` layers; 0 freezes nothing.

    Raises ConfigError if that leaves nothing to train.
    """
    if layers == 0:
        return
    lm, blocks = causal_lm(model), decoder_blocks(model)
    if layers >= len(blocks):
        raise ConfigError(
            f"model.frozen_layers = {layers}, but the model has {len(blocks)} layers: leave some to train"
        )
    lm.get_input_embeddings().requires_grad_(False)
    for block in blocks[:layers]:
        block.requires_grad_(False)


def halve_frozen(model: nn.Module) -> None:
    """Hold the frozen layers' weights in bfloat16: autocast would cast them anew in every pass, to the same values.

    Embeddings, and a head tied to them, stay: they carry the residual stream.
    """
    head = causal_lm(model).get_output_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not head and not module.weight.requires_grad:
            module.to(torch.bfloat16)


def _tied(model: nn.Module) -> bool:
    lm = causal_lm(model)
    return lm.get_output_embeddings().weight is lm.get_input_embeddings().weight


class Critic(nn.Module):
    """State values, one a token (the value before it is sampled).

    separate: a copy of the backbone with a linear head, as in the paper. head: a linear head on the
    policy's own hidden states, which it does not change.
    """

    def __init__(self, policy: Policy, kind: Literal["separate", "head"]) -> None:
        super().__init__()
        self.backbone: nn.Module | None = copy.deepcopy(policy.model) if kind == "separate" else None
        if self.backbone is not None and not _tied(self.backbone):
            causal_lm(self.backbone).get_output_embeddings().requires_grad_(False)  # a critic writes no tokens
        size = int(causal_lm(policy.model).get_decoder().config.hidden_size)
        self.head = nn.Linear(size, 1, device=policy.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: PackedBatch, policy_hidden: Tensor) -> Tensor:
        """Values of a batch's branch tokens, (N,), in fp32."""
        hidden = policy_hidden.detach() if self.backbone is None else packed_hidden(self.backbone, batch)
        with torch.autocast(hidden.device.type, enabled=False):
            values: Tensor = self.head(hidden.float()).squeeze(-1)
        return values


class Policy:
    """A causal LM with some of its weights set to train, and the backend that samples from it.

    Sampling and training share the weights. Log-probs that a loss compares always come from the packed
    pass here: in bfloat16 two paths can differ by more than a policy step.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any, config: ModelConfig, *, name: str = "policy", seed: int = 0
    ) -> None:
        self.config = config
        self.model = model
        self.tokenizer = tokenizer
        device = next(model.parameters()).device
        self.autocast = config.precision == "bf16" or (config.precision == "auto" and fast_bfloat16(device))
        if config.lora_rank:
            self.model = with_lora(model, config, seed)
        else:
            freeze_lower(self.model, config.frozen_layers)
        if self.autocast:
            halve_frozen(self.model)
        self.llm = TransformersLLM(self.model, tokenizer, name=name, autocast=self.autocast)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._reference: nn.Module | None = None

    @classmethod
    def load(cls, config: ModelConfig, seed: int = 0) -> Policy:
        """Load the model of a recipe in float32 (the masters of a bf16 run), and the adapter that it begins at.

        seed: of a LoRA adapter that begins anew.
        Raises AssetError for a model or adapter that cannot be had, ConfigError for an adapter that does not fit.
        """
        from r1ranker.assets import fetch_model

        adapter = None if config.adapter is None else find_adapter(config.adapter)
        model, tokenizer = load_model(fetch_model(config.path), device=config.device, dtype="float32")
        policy = cls(model, tokenizer, config, name=config.path, seed=seed)
        if adapter is not None:
            begin_at(policy.model, adapter, config)
        return policy

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def compute(self) -> AbstractContextManager[Any]:
        """The precision of the run."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    def packed(self, packs: Sequence[Pack], temperature: float = 1.0) -> tuple[PackedBatch, Tensor, Tensor]:
        """One packed pass: the batch, hidden states (N, H) and log-probs (N,) of its branch tokens."""
        batch = collate(packs, device=self.device)
        lookup = look_up(causal_lm(self.model), batch.ids)
        hidden = packed_hidden(self.model, batch, lookup)
        return batch, hidden, token_logprobs(self.model, hidden, batch.targets, temperature, lookup)

    def packed_trees(self, rows: Sequence[Sequence[Pack]]) -> tuple[TreeBatch, Tensor]:
        """One packed pass over rows of packs that begin alike (`llm.tree`): the batch, and its branches' worth."""
        batch = collate_trees(rows, device=self.device)
        packs = [pack for row in rows for pack in row]
        lookup = look_up(causal_lm(self.model), batch.ids)
        return batch, branch_scores(self.model, packed_hidden(self.model, batch, lookup), batch, packs, lookup)

    def keep_reference(self) -> None:
        """Keep today's weights as the reference of the KL term (LoRA needs no copy: its base is there)."""
        if not self.config.lora_rank:
            self._reference = copy.deepcopy(self.model).requires_grad_(False).eval()

    @contextmanager
    def reference(self) -> Iterator[nn.Module]:
        """The reference model, without gradients. Raises ValueError if `keep_reference` was not called."""
        with torch.no_grad():
            if self.config.lora_rank:
                with self.model.disable_adapter():  # type: ignore[operator]
                    yield self.model
            elif self._reference is None:
                raise ValueError("there is no reference model: call keep_reference() first")
            else:
                yield self._reference

    def reference_logprobs(self, batch: PackedBatch, temperature: float = 1.0) -> Tensor:
        """The reference's log-probs of a batch's branch tokens, (N,)."""
        with self.reference() as model:
            return token_logprobs(model, packed_hidden(model, batch), batch.targets, temperature)

    def reference_scores(self, batch: TreeBatch, rows: Sequence[Sequence[Pack]]) -> Tensor:
        """What the branches of a batch of these rows are worth to the reference."""
        with self.reference() as model:
            return branch_scores(model, packed_hidden(model, batch), batch, [pack for row in rows for pack in row])


MAX_PADDING = 0.1
"""The share of a pass that may be padding, where that takes no pass too small to be worth its cost."""


def even_parts(items: Sequence[int], size: int | None) -> list[list[int]]:
    """In parts of about `size`, which differ by one at most: each part is a whole optimizer step. None: one part."""
    count = -(-len(items) // size) if size else 1
    edges = [-(-len(items) * k // count) for k in range(count + 1)] if items else [0]
    return [list(items[begin:end]) for begin, end in pairwise(edges)]


def split_by_tokens(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Indices of like size together, each part within about `limit` positions when padded to its longest.

    A part that holds an eighth of the limit takes no member that would make more than a tenth of it padding.
    """
    parts: list[list[int]] = []
    held = 0
    for k in sorted(range(len(sizes)), key=lambda k: (sizes[k], k)):
        padded = sizes[k] * (len(parts[-1]) + 1) if parts else limit + 1
        wasteful = 8 * held >= limit and padded - held - sizes[k] > MAX_PADDING * padded
        if padded > limit or wasteful:
            parts.append([])
            held = 0
        parts[-1].append(k)
        held += sizes[k]
    return parts


def pack_size(pack: Pack) -> int:
    """Positions a pack takes."""
    return len(pack.trunk) + sum(len(branch) - 1 for branch in pack.branches)
