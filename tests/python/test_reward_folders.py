"""The reward folders that joust writes give transformers the scores that joust reads, alone and in padded batches, whatever the base's
padding token is: one of its own, its EOS, or none (max abs 1e-4 in float32)."""
import json
import os
import shutil
import subprocess
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

BIN = os.environ["JOUST_BIN"]
BASE = os.path.abspath("examples/stories/base")
LIMIT = 1e-4
EOS = 2
THINGS = ["kite", "boat", "dog", "cat", "map", "cake", "book", "ball"]
REWARD = """schema = 1
name = "reward"
[model]
base = "{base}"
dtype = "float32"
[data]
train = "{folder}/pairs.jsonl"
eval_fraction = 0
[learner]
batch_size = 8
steps = 10
learning_rate = 1e-3
threads = 1
[output]
dir = "{folder}/reward"
"""
RUN = """schema = 1
name = "judged"
preset = "oaif-dpo"
[policy]
model = "{base}"
dtype = "float32"
[data]
prompts = "{folder}/prompts.jsonl"
[feedback]
ask = "score"
[[judge]]
name = "reward"
kind = "reward_model"
model = "{folder}/reward"
[output]
dir = "{folder}/run"
"""


def joust(*arguments):
    out = subprocess.run([os.path.join(BIN, "joust"), *map(str, arguments)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return out.stdout


def lines(path, rows):
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def edit(path, **keys):
    with open(path) as file:
        found = json.load(file)
    for key, value in keys.items():
        found.pop(key, None)
        if value is not None:
            found[key] = value
    with open(path, "w") as file:
        json.dump(found, file)


def made(folder, pad_token, pad_token_id):
    """A base whose files name this padding token, and the reward model that joust makes of it."""
    base = f"{folder}/base"
    shutil.copytree(BASE, base)
    AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).save_pretrained(base)
    edit(f"{base}/config.json", pad_token_id=pad_token_id)
    edit(f"{base}/tokenizer_config.json", pad_token=pad_token)
    pairs = [{"prompt": f"Tom had a {thing}.", "chosen": f" He was happy with the {thing}.", "rejected": " It was dark."} for thing in THINGS]
    lines(f"{folder}/pairs.jsonl", pairs)
    lines(f"{folder}/prompts.jsonl", [{"prompt": "Tom had a red kite."}, {"prompt": "Rosa went to the lake and saw a small green boat."}])
    for name, text in [("reward", REWARD), ("run", RUN)]:
        with open(f"{folder}/{name}.toml", "w") as file:
            file.write(text.format(base=base, folder=folder))
    joust("train-reward", f"{folder}/reward.toml")
    return base


def judged(folder, base):
    """Answers with the scores that joust reads."""
    out = joust("sample", base, "--prompts", f"{folder}/prompts.jsonl", "--best", f"{folder}/run.toml", "--json", "-n", 3, "--max-new-tokens", 12)
    return [json.loads(line) for line in out.splitlines()]


def check(name, pad_token, pad_token_id):
    with tempfile.TemporaryDirectory() as folder:
        base = made(folder, pad_token, pad_token_id)
        answers = judged(folder, base)
        assert len(answers) >= 2, answers
        model = AutoModelForSequenceClassification.from_pretrained(f"{folder}/reward", dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(f"{folder}/reward")
        assert model.config.pad_token_id == tokenizer.pad_token_id, (model.config.pad_token_id, tokenizer.pad_token_id)
        texts = [answer["prompt"] + answer["completion"] + tokenizer.eos_token for answer in answers]
        ids = [tokenizer(text)["input_ids"] for text in texts]
        assert all(row[-1] == EOS for row in ids) and len({len(row) for row in ids}) > 1, ids
        with torch.no_grad():
            single = torch.stack([model(torch.tensor([row])).logits[0, 0] for row in ids])
            batch = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
        ours = torch.tensor([answer["score"] for answer in answers])
        for how, scores in [("alone", single), ("in a batch", batch)]:
            off = (ours - scores).abs().max().item()
            print(f"{name}, {how}: max abs difference {off:.2e}")
            assert off <= LIMIT, f"{name} {how}: joust {ours.tolist()}, transformers {scores.tolist()}"
        assert ours.std() > 100 * LIMIT, "the scores tell answers apart"


def main():
    torch.set_num_threads(1)
    check("padding of its own", "<pad>", 0)
    check("padding is EOS", "</s>", EOS)
    check("no padding", None, None)
    check("padding in the model's config alone", None, 0)


if __name__ == "__main__":
    main()
