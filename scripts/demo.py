#!/usr/bin/env python3
"""Runs online DPO on the stories model, shows answers before and after, and checks what came out.

usage: demo.py --joust BINARY --run RUN.toml [--smoke]

Ends with one line that begins with `demo ok:`; exits with 1 and says which limit was missed otherwise. --smoke trains a third of
the steps and asks only that the win rate rose.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BASE = os.path.join(ROOT, "examples", "stories", "base")
SHOWN = 4
LIMITS = {  # figure: (what it must be, whether it holds)
    "win_rate": ("above 0.85", lambda x: x > 0.85),
    "distinct2_ratio": ("at least 0.8", lambda x: x >= 0.8),
    "perplexity_ratio": ("at most 2", lambda x: x <= 2.0),
    "eos_share": ("at least 0.95", lambda x: x >= 0.95),
    "distinct_of_100": ("at least 90", lambda x: x >= 90),
}
SMOKE = {"win_rate": ("above 0.5 with its interval", lambda x: x > 0.5)}


def call(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def answers(joust, model, prompts):
    out = call(joust, "sample", model, "--prompts", prompts, "--limit", str(SHOWN), "--max-new-tokens", "80", "--json")
    return [json.loads(line) for line in out.splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--joust", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", default="runs/demo")
    args = parser.parse_args()
    joust = os.path.abspath(args.joust)
    shutil.rmtree(os.path.join(ROOT, args.out), ignore_errors=True)
    overrides = ["--set", f'output.dir="{args.out}"'] + (["--set", "learner.steps=30"] if args.smoke else [])
    began = time.monotonic()
    run = subprocess.run([joust, "run", args.run, *overrides], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    seconds = time.monotonic() - began
    if run.returncode:
        sys.exit(f"demo failed: joust run ended with exit code {run.returncode}")
    policy = os.path.join(args.out, "policy")
    prompts = os.path.join("examples", "stories", "prompts.jsonl")
    for before, after in zip(answers(joust, BASE, prompts), answers(joust, policy, prompts)):
        print(f"\n{before['prompt']}\n  before:{before['completion']}\n  after: {after['completion']}")
    figures = json.loads(call(joust, "eval", policy, "--against", BASE, "--run", args.run, "--json"))
    steps = sum(json.loads(line)["kind"] == "step" for line in open(os.path.join(ROOT, args.out, "metrics.jsonl")))
    low, high = figures["interval"]
    limits = SMOKE if args.smoke else LIMITS
    missed = [f"{name}={figures[name]:.3f} is not {what}" for name, (what, holds) in limits.items() if not holds(figures[name])]
    if args.smoke and low <= 0.5:
        missed.append(f"the interval [{low:.2f},{high:.2f}] reaches down to 0.5")
    line = (f"win_rate={figures['win_rate']:.2f} ci=[{low:.2f},{high:.2f}] distinct2_ratio={figures['distinct2_ratio']:.2f} "
            f"base_ppl_ratio={figures['perplexity_ratio']:.2f} eos={figures['eos_share']:.2f} "
            f"distinct_of_100={figures['distinct_of_100']} steps={steps} seconds={seconds:.0f} policy={policy}")
    if missed:
        sys.exit(f"\ndemo failed: {'; '.join(missed)}\n{line}")
    print(f"\ndemo ok: {line}")


if __name__ == "__main__":
    main()
