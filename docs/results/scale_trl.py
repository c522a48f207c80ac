"""Two arms of docs/results/scale.md: TRL's GRPOTrainer with demur's rewards.

python docs/results/scale_trl.py DATA SEED OUT

DATA is a dataset that demur has exported, or `new`: the very dialogues that scale.toml meets with
this seed, played by demur's rollout.
"""

import sys
import time

import datasets
import numpy as np
import trl
from transformers import AutoModelForCausalLM, AutoTokenizer

from demur.config import load_recipe
from demur.integrations.trl import reward_funcs
from demur.integrations.trl_rollout import ObjectionRollout, objection_rows
from demur.pool import claim_settings, task_pool
from demur.tasks.source import Source
from demur.world.seed import SEED_FOLDER

data, seed, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
functions, weights = reward_funcs({"correctness": 1.0, "brier": 0.5, "format": 0.5})
given = {}
if data == "new":
    recipe = load_recipe("docs/results/scale.toml", [])
    stage = recipe.stages[0]
    tasks = task_pool(recipe.tasks, np.random.default_rng([seed, 0]))
    source = Source(tasks, claim_settings(recipe.tasks), {})
    steps = [np.random.default_rng([seed, 2, 0, step]) for step in range(stage.steps)]
    draws = [d for rng in steps for d in source.draw(stage.prompts, rng, alone=stage.alone_share)]
    met = [row for draw in draws for row in objection_rows([draw])]  # the same one again, too
    rows = datasets.Dataset.from_list([{"prompt": row["prompt"]} for row in met])
    given["rollout_func"] = ObjectionRollout(met)
else:
    rows = datasets.load_dataset("parquet", data_files=f"{data}/data/train.parquet", split="train")
settings = trl.GRPOConfig(
    output_dir=f"{out}-work",
    max_steps=30,
    per_device_train_batch_size=512,
    num_generations=16,
    max_completion_length=32,
    temperature=1.0,
    learning_rate=3e-3,
    adam_beta2=0.95,
    warmup_steps=2,
    lr_scheduler_type="linear",
    max_grad_norm=1.0,
    beta=0.0,
    epsilon=0.2,
    loss_type="bnpo",
    scale_rewards="none",
    reward_weights=weights,
    report_to="none",
    save_strategy="no",
    use_cpu=True,
    bf16=False,
    logging_steps=1,
    disable_tqdm=True,
    shuffle_dataset=data != "new",
    seed=seed,
)
tokenizer = AutoTokenizer.from_pretrained(SEED_FOLDER)
trainer = trl.GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(SEED_FOLDER),
    reward_funcs=functions,
    args=settings,
    train_dataset=rows,
    processing_class=tokenizer,
    **given,
)
started = time.perf_counter()
trainer.train()
paid = [line["reward"] for line in trainer.state.log_history if "reward" in line]
print(f"{len(paid)} steps in {time.perf_counter() - started:.0f} s")
print(f"reward {sum(paid[:5]) / 5:.3f} -> {sum(paid[-5:]) / 5:.3f}")
trainer.model.save_pretrained(out)
tokenizer.save_pretrained(out)
