"""peft opens the adapters that joust writes, and joust those that peft writes, with the same logits (max abs 1e-4 in float32)."""
import json
import os
import shutil
import subprocess
import sys
import tempfile

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

BIN = os.environ["JOUST_BIN"]
BASE = os.path.abspath("examples/stories/base")
LIMIT = 1e-4


def joust(program, *arguments):
    out = subprocess.run([os.path.join(BIN, program), *map(str, arguments)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return out.stdout


def difference(folder, model):
    torch.manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (1, 40))
    ours = torch.tensor(json.loads(joust("logits", folder, ",".join(map(str, ids[0].tolist())))))
    with torch.no_grad():
        return (ours - model(ids).logits[0]).abs().max().item()


def check(name, value):
    print(f"{name}: max abs difference {value:.2e}")
    assert value <= LIMIT, f"{name}: {value} is above {LIMIT}"


def base(folder=BASE):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def exported(folder):
    """A run's adapter: peft finds its base, adds it, and merges it into what joust merges."""
    joust("joust", "run", "examples/stories/run.toml", "--set", f'output.dir="{folder}/run"', "--set", "learner.steps=3", "--set",
          "learner.warmup_steps=0", "--set", "learner.learning_rate=5e-3", "--set", "eval.every=0", "--set",
          'policy.lora={ rank = 4, alpha = 8, targets = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"] }')
    policy = f"{folder}/run/policy"
    model = AutoPeftModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
    moved = difference(BASE, model)
    assert moved > 100 * LIMIT, f"the adapter moves logits by {moved} only"
    check("adapter of joust run", difference(policy, model))
    joust("joust", "ckpt", "export", f"{folder}/run", "--merge", "--out", f"{folder}/merged")
    merged = AutoModelForCausalLM.from_pretrained(f"{folder}/merged", dtype=torch.float32).eval()
    check("its merge, opened by transformers", difference(policy, merged))
    check("its merge by peft", difference(f"{folder}/merged", model.merge_and_unload()))


def imported(folder, targets):
    """An adapter that peft wrote on a base in float32, which joust then samples in."""
    shutil.copytree(BASE, f"{folder}/base")
    base().save_pretrained(f"{folder}/base")
    model = get_peft_model(base(f"{folder}/base"), LoraConfig(r=3, lora_alpha=5, lora_dropout=0.1, target_modules=targets, task_type="CAUSAL_LM")).eval()
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(f"{folder}/adapter")
    check(f"adapter of peft on {targets}", difference(f"{folder}/adapter", PeftModel.from_pretrained(base(), f"{folder}/adapter").eval()))
    line = json.loads(joust("joust", "sample", f"{folder}/adapter", "--prompt", "Tom had a red kite.", "--temperature", 0, "--json"))
    ids = torch.tensor([line["prompt_ids"]])
    greedy = model.generate(input_ids=ids, do_sample=False, max_new_tokens=64, eos_token_id=2, pad_token_id=0)
    assert greedy[0, ids.shape[1]:].tolist() == line["token_ids"], "greedy answers differ"


def main():
    with tempfile.TemporaryDirectory() as folder:
        exported(folder)
    for targets in (["q_proj", "gate_proj"], "all-linear"):
        with tempfile.TemporaryDirectory() as folder:
            imported(folder, targets)


if __name__ == "__main__":
    sys.exit(main())
