"""TRL's side of trl_update.py and trl_step.py: runs in TRL's own environment and imports nothing of this project.

    <TRL's python> bench/trl_worker.py        (started by the scripts; talks in JSON lines over stdin and stdout)

The first line in is the job: {"model": folder, "prompt": text, "samples": G, "tokens": T} and, for an update,
"prompt_ids", "completions" and "advantages". Then every line "go" is answered with {"seconds": s}; "check" (updates
only) with the log-probs and gradient norms of the last update; an empty line or the end of the input ends the worker.
Settings are TRL's defaults but for what makes the work the same on both sides: float32, no gradient checkpointing,
beta 0, all layers trained, exactly T tokens a completion.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from datasets import Dataset

LEARNING_RATE = 1e-6


def say(message: dict[str, Any]) -> None:
    """One JSON line to the script that started this."""
    OUT.write(json.dumps(message) + "\n")
    OUT.flush()


def asked() -> str:
    """The next request, or an empty text at the end."""
    return sys.stdin.readline().strip()


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Something that differs from completion to completion."""
    return [float(len(set(ids))) for ids in completion_ids]


def make_trainer(job: dict[str, Any], folder: str) -> GRPOTrainer:
    """TRL's trainer over the model and one prompt."""
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    config = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=job["samples"],
        num_generations=job["samples"],
        max_completion_length=job["tokens"],
        generation_kwargs={"min_new_tokens": job["tokens"]},
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        max_steps=1_000_000,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    data = Dataset.from_list([{"prompt": job["prompt"]}] * 64)
    return GRPOTrainer(model, reward, args=config, train_dataset=data, processing_class=tokenizer)


def update(trainer: GRPOTrainer, job: dict[str, Any]) -> None:
    """Answer requests with the seconds of a forward and backward pass over the job's completions."""
    rows = len(job["completions"])
    completions = torch.tensor(job["completions"])
    batch = {
        "prompt_ids": torch.tensor([job["prompt_ids"]] * rows),
        "prompt_mask": torch.ones(rows, len(job["prompt_ids"]), dtype=torch.long),
        "completion_ids": completions,
        "completion_mask": torch.ones_like(completions),
        "advantages": torch.tensor(job["advantages"]),
        "num_items_in_batch": torch.tensor(float(completions.numel())),
    }
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    say({"ready": True})
    while (request := asked()) in ("go", "check"):
        if request == "check":
            say(_facts(trainer, batch))
            continue
        trainer.model.zero_grad(set_to_none=True)
        begin = time.perf_counter()
        trainer.accelerator.backward(trainer._compute_loss(trainer.model, batch))
        say({"seconds": time.perf_counter() - begin})


def _facts(trainer: GRPOTrainer, batch: dict[str, Any]) -> dict[str, Any]:
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    with torch.no_grad():
        logprobs = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, torch.ones_like(ids), batch["completion_ids"].shape[1]
        )[0]
    named = trainer.model.named_parameters()
    norms = {name: float(p.grad.norm()) for name, p in named if p.grad is not None}
    return {"logprobs": logprobs.flatten().tolist(), "gradient_norms": norms, "peak_mb": peak_mb()}


class InTurn(TrainerCallback):
    """Lets a step begin when it is asked for, and says how long it took, its rollout and optimizer included."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if asked() != "go":
            sys.exit()
        self.begin = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        say({"seconds": time.perf_counter() - self.begin, "peak_mb": peak_mb()})


def peak_mb() -> float:
    """Most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Take the job, then requests."""
    job = json.loads(asked())
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(job, folder)
        if "completions" in job:
            update(trainer, job)
        else:
            prompt = trainer._tokenize_prompts([job["prompt"]])[0][0]
            say({"ready": True, "prompt_tokens": len(prompt)})
            trainer.add_callback(InTurn())
            trainer.train()


if __name__ == "__main__":
    OUT = sys.stdout  # what TRL prints goes to stderr
    sys.stdout = sys.stderr
    main()
