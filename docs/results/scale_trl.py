"""The fourth arm of docs/results/scale.md: TRL's GRPOTrainer on exported dialogues.

python docs/results/scale_trl.py DATA SEED OUT
"""

import sys
import time

import datasets
import trl
from transformers import AutoModelForCausalLM, AutoTokenizer

from demur.integrations.trl import reward_funcs
from demur.world.seed import SEED_FOLDER

data, seed, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
functions, weights = reward_funcs({"correctness": 1.0, "brier": 0.5, "format": 0.5})
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
    seed=seed,
)
tokenizer = AutoTokenizer.from_pretrained(SEED_FOLDER)
trainer = trl.GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(SEED_FOLDER),
    reward_funcs=functions,
    args=settings,
    train_dataset=rows,
    processing_class=tokenizer,
)
started = time.perf_counter()
trainer.train()
paid = [line["reward"] for line in trainer.state.log_history if "reward" in line]
print(f"{len(paid)} steps in {time.perf_counter() - started:.0f} s")
print(f"reward {sum(paid[:5]) / 5:.3f} -> {sum(paid[-5:]) / 5:.3f}")
trainer.model.save_pretrained(out)
tokenizer.save_pretrained(out)
