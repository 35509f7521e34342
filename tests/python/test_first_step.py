"""The first step of every preset, computed again in torch from the archive: loss and gradient norm (1e-4 relative, float32)."""
import glob
import json
import os
import subprocess
import sys
import tempfile

import pyarrow.parquet as parquet
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

BIN = os.environ["JOUST_BIN"]
STORIES = os.path.abspath("examples/stories")
LIMIT = 1e-4
PRESETS = ("oaif-dpo", "oaif-ipo", "oaif-slic", "sppo", "nash-md", "nash-ema", "ipo-md", "xpo", "iterative-dpo", "ppo", "rloo",
           "grpo", "reinforce++")
RUN = """
schema = 1
name = "first"
preset = "{preset}"
policy = {{ model = "{base}", dtype = "float32" }}
data = {{ prompts = "{stories}/prompts.jsonl", eval_fraction = 0.0 }}
sampling = {{ max_new_tokens = 24 }}
learner = {{ prompts_per_step = 6, micro_batch = 4, steps = 1, epochs_per_iteration = 1, diagnose_every = 0, checkpoint_every = 0 }}
eval = {{ every = 0 }}
output = {{ dir = "{out}" }}

[[judge]]
name = "rules"
kind = "rule"
rules = [
  {{ words = {{ happy = 1.0, smiled = 1.0, friend = 1.0, the = 0.3, a = 0.2, sad = -1.0 }} }},
  {{ ends_with = "[.!?]", score = 0.5 }},
]
"""


def run(preset, folder):
    """Trains one step; returns its metrics and the archive's rows by prompt."""
    out = os.path.join(folder, preset)
    path = f"{out}.toml"
    with open(path, "w") as file:
        file.write(RUN.format(preset=preset, base=os.path.join(STORIES, "base"), stories=STORIES, out=out))
    done = subprocess.run([os.path.join(BIN, "joust"), "run", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(os.path.join(out, "metrics.jsonl")) as file:
        metrics = next(line for line in map(json.loads, file) if line["kind"] == "step")
    rows = [row for part in glob.glob(f"{out}/archive/*.parquet") for row in parquet.read_table(part).to_pylist()]
    prompts = {}
    for row in sorted(rows, key=lambda row: (row["position"], row["sample_index"])):
        prompts.setdefault(row["position"], []).append(row)
    return metrics, [prompts[position] for position in sorted(prompts)]


def logprobs(model, row):
    """Log-probs of the answer's tokens, [T], in nats."""
    prompt, answer = row["prompt_ids"], row["token_ids"]
    logits = model(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1:-1]
    return F.log_softmax(logits.float(), -1).gather(1, torch.tensor(answer)[:, None])[:, 0]


class Answer:
    """An archived answer with its log-probs under the policy, which carry the gradient, and under the reference: the base for both."""

    def __init__(self, model, row):
        self.row = row
        self.policy = logprobs(model, row)
        self.reference = self.policy.detach()
        self.old = torch.tensor(row["logprobs"])

    @property
    def h(self):
        return (self.policy - self.reference).sum()

    @property
    def is_ours(self):
        return self.row["player"] == "policy"


def preferences(answers):
    """P(i preferred to j), [K, K], from what the judge said."""
    value = json.loads(answers[0].row["judgement_value"])
    (kind, value), = value.items()
    if kind == "matrix":
        return torch.tensor(value, dtype=torch.float64).view(len(answers), -1)
    if kind == "preference":
        return torch.tensor([[0.5, value], [1 - value, 0.5]], dtype=torch.float64)
    scores = torch.tensor(value, dtype=torch.float64)
    return torch.sigmoid(scores[:, None] - scores[None, :])


def extremes(strengths):
    """The first of the strongest answers and the last of the weakest."""
    strengths = [round(value, 12) for value in strengths]
    return strengths.index(max(strengths)), len(strengths) - 1 - strengths[::-1].index(min(strengths))


def pairs(prompts, soft=False):
    """(chosen, rejected, p) of each prompt's best and worst answer; hard labels drop those that are tied or alike."""
    for answers in prompts:
        value = json.loads(answers[0].row["judgement_value"])
        table = preferences(answers)
        strengths = value.get("scores") or table.mean(1).tolist()
        best, worst = extremes(strengths)
        alike = strengths[best] == strengths[worst] or answers[best].row["token_ids"] == answers[worst].row["token_ids"]
        if soft or not alike:
            yield answers[best], answers[worst], table[best, worst].item() if soft else 1.0


def mean(values):
    return torch.stack(list(values)).mean()


def mixed(prompts, loss, soft=False):
    """Mean over pairs of p·L(w, l) + (1 − p)·L(l, w)."""
    return mean(p * loss(w, l) + (1 - p) * loss(l, w) for w, l, p in pairs(prompts, soft))


def dpo(beta):
    return lambda w, l: -F.logsigmoid(beta * (w.h - l.h))


def ipo(beta):
    return lambda w, l: (w.h - l.h - 1 / (2 * beta)) ** 2


def xpo(prompts, beta=0.1, alpha=1e-5):
    def loss(w, l):
        explored, = [answer for answer in (w, l) if answer.row["player"] == "reference"]
        return dpo(beta)(w, l) + alpha * explored.policy.sum()
    return mixed(prompts, loss)


def sppo(prompts, beta=1e-3):
    losses = []
    for answers in prompts:
        rates = preferences(answers).mean(1)
        best, worst = extremes(rates.tolist())
        if rates[best] == rates[worst]:
            continue
        losses.append(0.5 * sum((answers[i].h - (rates[i] - 0.5) / beta) ** 2 for i in (best, worst)))
    return mean(losses)


def nash_md(prompts, beta=0.008):
    losses = []
    for answers in prompts:
        (ours, opponent) = answers if answers[0].is_ours else answers[::-1]
        p = preferences(answers)[answers.index(ours), answers.index(opponent)]
        to_go = (ours.policy - ours.reference).detach().flip(0).cumsum(0).flip(0)
        losses.append(-((p - 0.5 - beta * to_go) * ours.policy).sum())
    return mean(losses)


def scores(answers):
    return torch.tensor([answer.row["score"] for answer in answers], dtype=torch.float64)


def clipped(log_ratio, advantage, epsilon=0.2):
    ratio = log_ratio.exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - epsilon, 1 + epsilon) * advantage)


def rloo(prompts, beta=0.05):
    losses = []
    for answers in prompts:
        held = scores(answers) - beta * torch.stack([(a.old - a.reference).sum() for a in answers])
        advantages = len(answers) / (len(answers) - 1) * (held - held.mean())
        losses += [clipped((a.policy - a.old).sum(), advantage) for a, advantage in zip(answers, advantages)]
    return mean(losses)


def grpo(prompts, beta=0.04):
    losses = []
    for answers in prompts:
        rewards = scores(answers)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
        for a, advantage in zip(answers, advantages):
            back = a.reference - a.policy
            losses.append((clipped(a.policy - a.old, advantage) + beta * (back.exp() - back - 1)).mean())
    return mean(losses)


def by_token(prompts, beta, estimate):
    """Whitened advantages over all tokens of the step, the mean over tokens of the clipped loss."""
    answers = [answer for prompt in prompts for answer in prompt]
    advantages = []
    for answer in answers:
        rewards = -beta * (answer.old - answer.reference).double()
        rewards[-1] += answer.row["score"]
        advantages.append(estimate(rewards))
    every = torch.cat(advantages)
    scale = (every.var() + 1e-8).sqrt()
    parts = [clipped(a.policy - a.old, (own - every.mean()) / scale) for a, own in zip(answers, advantages)]
    return torch.cat(parts).mean()


def to_go(decay):
    def estimate(rewards):
        out, total = torch.zeros_like(rewards), 0.0
        for t in reversed(range(len(rewards))):
            total = rewards[t] + decay * total
            out[t] = total
        return out
    return estimate


LOSSES = {
    "oaif-dpo": lambda prompts: mixed(prompts, dpo(0.1)),
    "oaif-ipo": lambda prompts: mixed(prompts, ipo(1.0)),
    "oaif-slic": lambda prompts: mixed(prompts, lambda w, l: F.relu(1 - 0.002 * (w.h - l.h))),
    "sppo": sppo,
    "nash-md": nash_md,
    "nash-ema": nash_md,
    "ipo-md": lambda prompts: mixed(prompts, ipo(0.1), soft=True),
    "xpo": xpo,
    "iterative-dpo": lambda prompts: mixed(prompts, dpo(0.1)),
    "rloo": rloo,
    "grpo": grpo,
    "reinforce++": lambda prompts: by_token(prompts, 0.01, to_go(1.0)),
    # The critic's head begins as zeros: every value is 0, and advantages are sums that decay by gamma * lambda = 0.95.
    "ppo": lambda prompts: by_token(prompts, 0.05, to_go(0.95)),
}


def difference(ours, theirs):
    return abs(ours - theirs) / max(abs(theirs), 1e-3)


def main():
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        for preset in PRESETS:
            metrics, rows = run(preset, folder)
            model = AutoModelForCausalLM.from_pretrained(os.path.join(STORIES, "base"), dtype=torch.float32)
            prompts = [[Answer(model, row) for row in answers] for answers in rows]
            loss = LOSSES[preset](prompts)
            loss.backward()
            norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
            value = metrics["loss"]
            if preset == "ppo":  # less the critic's part, half of the mean square of the returns
                value -= 0.1 * metrics["loss/value_avg"]
            off = [difference(value, loss.item()), difference(metrics["grad_norm"], norm)]
            print(f"{preset}: loss {value:.6g} ({loss.item():.6g}), gradient norm {metrics['grad_norm']:.6g} ({norm:.6g})")
            failed += [preset] if max(off) > LIMIT else []
    assert not failed, f"first steps differ from torch: {', '.join(failed)}"


if __name__ == "__main__":
    sys.exit(main())
