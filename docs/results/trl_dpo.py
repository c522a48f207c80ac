"""TRL's DPOTrainer on pairs that demur has exported: docs/results/trl.md.

python docs/results/trl_dpo.py DATA SEED OUT
"""

import sys

import datasets
import trl
from transformers import AutoModelForCausalLM, AutoTokenizer

from demur.world.seed import SEED_FOLDER

data, seed, out = sys.argv[1], int(sys.argv[2]), sys.argv[3]
rows = datasets.load_dataset("parquet", data_files=f"{data}/data/train.parquet", split="train")
settings = trl.DPOConfig(
    output_dir=f"{out}-work",
    max_steps=200,
    per_device_train_batch_size=32,
    learning_rate=1e-4,
    beta=0.2,
    report_to="none",
    use_cpu=True,
    save_strategy="no",
    bf16=False,
    disable_tqdm=True,
    seed=seed,
)
tokenizer = AutoTokenizer.from_pretrained(SEED_FOLDER)
trainer = trl.DPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(SEED_FOLDER),
    args=settings,
    train_dataset=rows,
    processing_class=tokenizer,
)
trainer.train()
trainer.model.save_pretrained(out)
tokenizer.save_pretrained(out)
