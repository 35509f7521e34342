"""transformers opens what joust reads and writes, and computes the same logits (max abs 1e-4 in float32)."""
import json
import os
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

BIN = os.environ["JOUST_BIN"]
BASE = "examples/stories/base"
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


def online_dpo_policy(folder):
    run = "examples/stories/run.toml"
    joust("joust", "run", run, "--set", f'output.dir="{folder}/run"', "--set", "learner.steps=2",
          "--set", "learner.warmup_steps=0", "--set", "eval.every=0")
    return f"{folder}/run/policy"


def llama3_with_old_keys(folder):
    """Grouped queries, untied head, llama3 rope, several shards, and the config keys of before."""
    torch.manual_seed(1)
    config = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         vocab_size=512, max_position_embeddings=256, tie_word_embeddings=False,
                         rope_parameters={"rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0,
                                          "high_freq_factor": 4.0, "original_max_position_embeddings": 32})
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder, max_shard_size="100KB")
    path = os.path.join(folder, "config.json")
    keys = json.load(open(path))
    keys["torch_dtype"] = keys.pop("dtype", "float32")
    rope = keys.pop("rope_parameters")
    keys["rope_theta"] = rope.pop("rope_theta")
    keys["rope_scaling"] = rope
    json.dump(keys, open(path, "w"))
    return model


def main():
    with tempfile.TemporaryDirectory() as folder:
        policy = online_dpo_policy(folder)
        model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32).eval()
        check("policy of joust run", difference(policy, model))
        text = "One day Tom went to the beach."
        tokenizer = AutoTokenizer.from_pretrained(policy)
        ids = tokenizer(text)["input_ids"]
        line = json.loads(joust("joust", "sample", policy, "--prompt", text, "--temperature", 0, "--json").splitlines()[0])
        by_ids = json.loads(joust("joust", "sample", policy, "--prompt-ids", ",".join(map(str, ids)), "--temperature", 0, "--json"))
        assert line["token_ids"] == by_ids["token_ids"], "text and ids give different answers"
        greedy = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=64, eos_token_id=2, pad_token_id=0)
        assert greedy[0, len(ids):].tolist() == line["token_ids"], "greedy answers differ"
        assert tokenizer.decode(line["token_ids"], skip_special_tokens=True) == line["text"]
        print(f"greedy answer of {len(line['token_ids'])} tokens is the same")

    with tempfile.TemporaryDirectory() as folder:
        check("llama3 rope, old keys, shards", difference(folder, llama3_with_old_keys(folder)))

    with tempfile.TemporaryDirectory() as folder:
        config = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=512,
                             num_labels=1, pad_token_id=0)
        torch.manual_seed(2)
        LlamaForSequenceClassification(config).save_pretrained(folder)
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        ids = torch.randint(3, 512, (1, 20))
        ours = json.loads(joust("logits", folder, ",".join(map(str, ids[0].tolist()))))[-1][0]
        with torch.no_grad():
            check("reward head", abs(ours - model(ids).logits[0, 0].item()))


if __name__ == "__main__":
    sys.exit(main())
