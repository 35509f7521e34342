#!/usr/bin/env python3
"""Speed beside TRL and Hugging Face on the same models, shapes and machine, alternating in one run, and the bound.

usage: bench.py --bin FOLDER_OF_BINARIES [--rounds 2] [--models tiny,smol] [--parts ranks,peers,cluster]

The peers are ../shared/peers/*.py, run by this interpreter (`make bench` gives the pinned environment). Pairs per second of joust
are those of `joust run`, first step left out, with the peer's reward (vowels), prompts and lengths, strictly on policy as it. joust keeps float32
masters and AdamW moments; the peers train in pure bfloat16. Those of a cluster are of the same run file, under `joust up`. The bound is the floating-point operations of a step over the matrix
rate (2048 x 2048 x 2048, bfloat16) measured in the same run.
"""
import argparse
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
print = functools.partial(print, flush=True)  # a line is there when it is measured
PEERS = os.path.join(ROOT, "..", "shared", "peers")
SHAPES = {  # model: (prompts a step, new tokens, steps; batch, prompt tokens of the generate and train comparison)
    "tiny": (16, 64, 4, 32, 32),
    "smol": (8, 64, 2, 16, 32),
}
RUN = """
schema = 1
name = "bench"
preset = "oaif-dpo"
[policy]
model = "{model}"
dtype = "bfloat16"
[data]
prompts = "prompts.jsonl"
eval_fraction = 0.0
[sampling]
max_new_tokens = {new}
[feedback]
ask = "score"
[[judge]]
name = "vowels"
kind = "rule"
rules = [{{ pattern = "[aeiou]", score = 1.0, max_count = 100000 }}]
[pairing]
filters = []
[learner]
prompts_per_step = {prompts}
micro_batch = {prompts}
learning_rate = 1e-5
steps = {steps}
checkpoint_every = 1000
[pipeline]
max_staleness = 0
[eval]
every = 0
[output]
archive = false
"""


def call(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def figures(text):
    return {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", text)}


def run_file(folder, model, shape):
    """Writes a run file for steps after a first one, with its prompts, and returns its path."""
    prompts, new, steps = shape
    with open(os.path.join(folder, "prompts.jsonl"), "w") as file:
        for i in range(prompts * (steps + 2)):
            file.write(json.dumps({"prompt": f"Tell me about clause {i} of the license, in plain words."}) + "\n")
    path = os.path.join(folder, "run.toml")
    with open(path, "w") as file:
        file.write(RUN.format(model=model, new=new, prompts=prompts, steps=steps + 1))
    return path


def pairs_per_s(output, shape):
    """Returns the prompts per second that a run's metrics tell, after its first step."""
    prompts, _, steps = shape
    lines = [json.loads(line) for line in open(os.path.join(output, "metrics.jsonl"))]
    return steps * prompts / (lines[-1]["time_s"] - lines[0]["time_s"])


def joust_pairs(args, folder, model, shape, preset):
    """Runs joust with a preset of two answers and returns its prompts per second after the first step."""
    path = run_file(folder, model, shape)
    with tempfile.TemporaryDirectory(dir=folder) as out:
        call(os.path.join(args.bin, "joust"), "run", path, "--set", f"preset={preset}", "--set", f'output.dir="{out}/run"')
        return pairs_per_s(f"{out}/run", shape)


def cluster_pairs(args, folder, model, shape, up=(), changes=()):
    """Runs the same run file on a cluster of its own and returns its prompts per second after the first step."""
    path, joust = run_file(folder, model, shape), os.path.join(args.bin, "joust")
    overrides = [part for change in changes for part in ("--set", change)]
    with tempfile.TemporaryDirectory() as out:
        call(joust, "up", "--folder", out, "--root", folder, "--detach", *up)
        try:
            call(joust, "run", "submit", path, "--cluster", out, "--watch", *overrides)
            return pairs_per_s(f"{out}/runs/bench", shape)
        finally:
            call(joust, "down", "--folder", out)


def flops(parameters, embedding, prompts, new, prompt_tokens):
    """Operations of a step: sampling and the reference's pass read each token once, training three times as much."""
    sequences, tokens = 2 * prompts, prompt_tokens + new
    return 2 * (parameters - embedding) * sequences * tokens * (1 + 1 + 3)


def make_model(folder, name):
    """Returns the folder of a random model, made if it is not there yet."""
    model = os.path.join(folder, name)
    if not os.path.isdir(model):
        call(sys.executable, os.path.join(PEERS, "make_model.py"), model, name)
    return model


def bench(args, folder, name):
    prompts, new, steps, batch, prompt = SHAPES[name]
    model = make_model(folder, name)
    config = json.load(open(os.path.join(model, "config.json")))
    rounds = []
    for _ in range(args.rounds):
        trl = figures(call(sys.executable, os.path.join(PEERS, "trl_online_dpo.py"), model, steps, prompts, new, "bf16"))
        shape = (prompts, new, steps)
        pairs = joust_pairs(args, folder, model, shape, "oaif-dpo")
        nash = joust_pairs(args, folder, model, shape, "nash-md")
        hf = figures(call(sys.executable, os.path.join(PEERS, "hf_generate.py"), model, batch, prompt, new, "bf16"))
        ours = figures(call(os.path.join(args.bin, "speed"), model, batch, prompt, new, "bf16"))
        lora = figures(call(os.path.join(args.bin, "lora"), model, batch, prompt, new, 16))
        rounds.append((pairs, trl["pairs_per_s"], ours, hf, nash, lora))
    median = lambda pick: statistics.median(pick(r) for r in rounds)
    size = int(config["hidden_size"]) * int(config["vocab_size"])
    parameters = os.path.getsize(os.path.join(model, "model.safetensors")) / 4
    embedding = 0 if config.get("tie_word_embeddings") else size
    rate = median(lambda r: r[2]["matmul_gflops"]) * 1e9
    bound = prompts * rate / flops(parameters, embedding, prompts, new, 20)
    pairs, trl = median(lambda r: r[0]), median(lambda r: r[1])
    print(f"{name} online_dpo pairs_per_s={pairs:.2f} trl={trl:.2f} ratio={median(lambda r: r[0] / r[1]):.2f} "
          f"bound={bound:.1f} share_of_bound={pairs / bound:.2f} (float32 masters; TRL pure bfloat16)")
    print(f"{name} nash_md step_time={median(lambda r: r[0] / r[4]):.2f} x oaif-dpo's, "
          f"mixture_token={median(lambda r: r[2]['mixture_cost']):.2f} x (policy + reference), "
          f"loss={median(lambda r: r[2]['loss_percent']):.3f} % of a training step")
    print(f"{name} lora publish_ms={median(lambda r: r[5]['publish_ms']):.1f} (all weights {median(lambda r: r[5]['whole_ms']):.0f}), "
          f"rank 16 on every projection: sampled tokens/s {median(lambda r: r[5]['gen_share']):.2f} x the base's, "
          f"trained tokens/s {median(lambda r: r[5]['train_ratio']):.2f} x those of all weights")
    for key, what in (("gen_tokens_per_s", "generate"), ("train_tokens_per_s", "train")):
        print(f"{name} {what} tokens_per_s={median(lambda r: r[2][key]):.0f} hf={median(lambda r: r[3][key]):.0f} "
              f"ratio={median(lambda r: r[2][key] / r[3][key]):.2f}")


def bench_parts(args):
    """What training on several ranks and large vocabularies rests on, apart."""
    times = []
    for _ in range(args.rounds):
        bare = figures(call(sys.executable, os.path.join(ROOT, "scripts", "bench_c10d.py"), 100))
        ours = figures(call(os.path.join(args.bin, "collective"), 100))
        times.append((ours["allreduce_ms"], bare["allreduce_ms"]))
    median = lambda pick: statistics.median(pick(t) for t in times)
    print(f"all_reduce of 100 MB between 2 ranks ms={median(lambda t: t[0]):.0f} bare_c10d={median(lambda t: t[1]):.0f} "
          f"ratio={median(lambda t: t[0] / t[1]):.2f}")
    fused, plain = (figures(call(os.path.join(args.bin, "fused"), 2 * 1024, 896, 152_000, how)) for how in ("fused", "plain"))
    print(f"log-probs of 2 x 1024 tokens, hidden 896, vocabulary 152000: extra_mib={fused['extra_mib']:.0f} "
          f"unfused={plain['extra_mib']:.0f} ratio={fused['extra_mib'] / plain['extra_mib']:.3f} "
          f"time={fused['seconds'] / plain['seconds']:.2f} x")


def bench_cluster(args, folder):
    """What a cluster costs beside one process, and what a second rollout worker brings."""
    median = lambda rounds, pick: statistics.median(pick(r) for r in rounds)
    model, shape = make_model(folder, "smol"), SHAPES["smol"][:3]
    rounds = [(cluster_pairs(args, folder, model, shape), joust_pairs(args, folder, model, shape, "oaif-dpo")) for _ in range(args.rounds)]
    print(f"smol cluster pairs_per_s={median(rounds, lambda r: r[0]):.2f} one_process={median(rounds, lambda r: r[1]):.2f} "
          f"ratio={median(rounds, lambda r: r[0] / r[1]):.2f} (1 rollout, 1 judge, 1 learner; the same run file)")
    # A worker leases the prompts of a step at once, so a second one needs a second step under way.
    model, (prompts, new, _, _, _) = make_model(folder, "tiny"), SHAPES["tiny"]
    shape, changes = (prompts, new, 16), ("pipeline.max_staleness=3",)
    two, one = (("--threads", 1, "--rollouts", count) for count in (2, 1))
    rounds = [tuple(cluster_pairs(args, folder, model, shape, up, changes) for up in (two, one)) for _ in range(args.rounds)]
    print(f"tiny cluster 2 rollout workers pairs_per_s={median(rounds, lambda r: r[0]):.2f} 1={median(rounds, lambda r: r[1]):.2f} "
          f"ratio={median(rounds, lambda r: r[0] / r[1]):.2f} (max_staleness 3, a thread each beside the learner's, {os.cpu_count()} cores)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--models", default="tiny,smol")
    parser.add_argument("--parts", default="ranks,peers,cluster")
    args = parser.parse_args()
    if not os.path.isdir(PEERS):
        sys.exit(f"bench: the peers are expected in {os.path.normpath(PEERS)}, which is not there")
    parts = args.parts.split(",")
    if "ranks" in parts:
        bench_parts(args)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models.split(",") if "peers" in parts else []:
            bench(args, folder, name)
        if "cluster" in parts:
            bench_cluster(args, folder)


if __name__ == "__main__":
    main()
