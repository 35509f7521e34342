"""transformers opens what joust reads and writes, and computes the same logits (max abs 1e-4 in float32)."""
import json
import os
import shutil
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


CHAT = ("{{ bos_token }}{% for m in messages %}\n    {% if m['role'] == 'system' %}\n[{{ m['content'].strip() }}]{% else %}\n"
        "<{{ m['role'] }}> {{ m['content'] }}{{ eos_token }}{% endif %}\n{% endfor %}\n{% if add_generation_prompt %}<assistant>{% endif %}")
MESSAGES = [{"role": "system", "content": " Be kind. "}, {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hi!"}, {"role": "user", "content": "Who had a kite?"}]


def chat_prompts_are_the_same(folder):
    """The template as a file of today and inside tokenizer_config.json as before; no BOS is doubled."""
    shutil.copytree(BASE, folder, dirs_exist_ok=True)
    prompts = os.path.join(folder, "prompts.jsonl")
    with open(prompts, "w") as file:
        file.write(json.dumps({"prompt": MESSAGES}) + "\n" + json.dumps({"messages": MESSAGES + [{"role": "assistant", "content": "Tom"}]}) + "\n")
    config_path = os.path.join(folder, "tokenizer_config.json")
    config = json.load(open(config_path))
    template_path = os.path.join(folder, "chat_template.jinja")
    for today in (True, False):
        if today:
            open(template_path, "w").write(CHAT)
        else:
            os.remove(template_path)
            json.dump(dict(config, chat_template=CHAT), open(config_path, "w"))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        text = tokenizer.apply_chat_template(MESSAGES, add_generation_prompt=True, tokenize=False)
        expected = tokenizer(text, add_special_tokens=False)["input_ids"]
        out = joust("joust", "sample", folder, "--prompts", prompts, "--max-new-tokens", 1, "--json")
        for line in out.splitlines():
            assert json.loads(line)["prompt_ids"] == expected, (today, text)
    print(f"chat prompts of {len(expected)} ids are the same, from both kinds of folder")


def main():
    with tempfile.TemporaryDirectory() as folder:
        chat_prompts_are_the_same(folder)

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
        assert tokenizer.decode(line["token_ids"], skip_special_tokens=True) == line["completion"]
        print(f"greedy answer of {len(line['token_ids'])} tokens is the same")

    with tempfile.TemporaryDirectory() as folder:
        check("llama3 rope, old keys, shards", difference(folder, llama3_with_old_keys(folder)))

    for labels in (1, 3):
        with tempfile.TemporaryDirectory() as folder:
            config = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=512,
                                 num_labels=labels, pad_token_id=0)
            torch.manual_seed(2)
            LlamaForSequenceClassification(config).save_pretrained(folder)
            model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
            ids = torch.randint(3, 512, (1, 20))
            ours = json.loads(joust("logits", folder, ",".join(map(str, ids[0].tolist()))))[-1]
            assert len(ours) == labels
            with torch.no_grad():
                check(f"reward head of {labels}", (torch.tensor(ours) - model(ids).logits[0]).abs().max().item())


if __name__ == "__main__":
    sys.exit(main())
