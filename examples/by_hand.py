#!/usr/bin/env python3
"""Trains the stories model with the loop in one's own hands: generate, judge, pair, put, step.

usage: by_hand.py [--steps N] [--prompts K]   needs a cluster (`joust up`) and the client (clients/python).
"""

import argparse
import json
import time
from pathlib import Path
from statistics import fmean

import joust

STORIES = Path(__file__).resolve().parent / "stories"


def one_step(run: joust.Run, prompts: list[str]) -> str:
    """Answers and judges the prompts, trains on the pairs, and says how it went."""
    scores: list[float] = []
    examples = []
    for answers in run.rollouts.generate(prompts, num_generations=2, max_new_tokens=80):
        judgement = run.judges.score(answers.prompt, answers)
        scores += judgement.scores or []
        example = joust.pair(answers, judgement)
        if example is not None:
            examples.append(example)
    if not examples:
        return f"no pair among {len(prompts)} prompts, nothing was trained"
    run.learner.put_examples(examples)
    step = run.learner.train_step(publish=True)
    return f"step {step.step}  pairs {step.examples}  loss {step.metrics['loss']:.4f}  score {fmean(scores):.3f}"


def main() -> None:
    """Starts a run by hand, trains it, and stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=16, help="prompts a step")
    args = parser.parse_args()
    prompts = [json.loads(line)["prompt"] for line in (STORIES / "prompts.jsonl").read_text().splitlines()]
    with joust.connect() as cluster:
        run = cluster.runs.start(STORIES / "run.toml", by_hand=True, name=f"by-hand-{int(time.time())}")
        try:
            for step in range(args.steps):
                first = step * args.prompts
                asked = [prompts[(first + i) % len(prompts)] for i in range(args.prompts)]
                print(one_step(run, asked), flush=True)
        finally:
            run.stop()


if __name__ == "__main__":
    main()
