"""The losses of joust and of TRL's own trainers agree in value and gradient, on random log-probs of a step."""
import json
import os
import random
import subprocess
from types import SimpleNamespace

import torch
from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RLOOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

LENGTHS = [(5, 9), (7, 7), (12, 3), (4, 8), (6, 6), (3, 11)]
WIDTH = max(max(pair) for pair in LENGTHS)
TOLERANCE = 1e-5
SAME = lambda value: value


def joust(question):
    """Asks joust's own objective for loss and gradients."""
    binary = os.path.join(os.environ["JOUST_BIN"], "loss")
    out = subprocess.run([binary], input=json.dumps(question), capture_output=True, text=True, check=True).stdout
    answer = json.loads(out)
    return answer["loss"], answer["gradients"]


def draw(seed):
    """Random log-probs of chosen and rejected tokens, `[2B, WIDTH]` with chosen first as in TRL, of policy and reference."""
    generator = torch.Generator().manual_seed(seed)
    policy = -3 * torch.rand(2 * len(LENGTHS), WIDTH, generator=generator)
    reference = policy + 0.7 * torch.randn(policy.shape, generator=generator)
    mask = torch.zeros_like(policy)
    for row, length in enumerate([pair[0] for pair in LENGTHS] + [pair[1] for pair in LENGTHS]):
        mask[row, :length] = 1
    return policy * mask, reference * mask, mask


def rows(table, mask):
    """Cuts a table back into one list a sequence."""
    return [[float(value) for value, there in zip(line, keep) if there] for line, keep in zip(table, mask)]


def ask(loss, params, policy, reference, mask):
    """Asks joust about a step of pairs; gradients come back as rows in TRL's order."""
    pairs = len(LENGTHS)
    ours, theirs = rows(policy.detach(), mask), rows(reference, mask)
    examples = [{"policy": [ours[i], ours[pairs + i]], "reference": [theirs[i], theirs[pairs + i]]} for i in range(pairs)]
    value, flat = joust({"loss": loss, "params": params, "examples": examples})
    gradients, at = [None] * (2 * pairs), 0
    for i in range(pairs):
        for row in (i, pairs + i):
            gradients[row] = flat[at:at + len(ours[row])]
            at += len(ours[row])
    return value, gradients


def accelerator():
    return SimpleNamespace(device="cpu", gather=SAME, gather_for_metrics=SAME)


def module():
    """Stands where TRL asks a model about itself."""
    module = torch.nn.Identity()
    module.is_gradient_checkpointing = False
    return module


def outputs(log_probs):
    """What TRL's patched forward returns, with the figures that only its metrics read."""
    blank = torch.zeros_like(log_probs)
    return SimpleNamespace(log_probs=log_probs, entropy=blank, mean_logits=blank, is_top1=blank.bool(), log_sum_sq_probs=blank)


def trl_dpo(settings, policy, reference, mask):
    """Runs DPOTrainer's own loss on given log-probs."""
    model = lambda **_: outputs(policy)
    model.training = True
    names = {"ld_alpha": None, "f_divergence_type": "reverse_kl", "f_alpha_divergence_coef": 0.5, "label_smoothing": 0.0}
    stub = SimpleNamespace(
        accelerator=accelerator(), model=module(), ref_model=lambda **_: outputs(reference),
        aux_loss_enabled=False, precompute_ref_logps=False, use_weighting=False, loss_weights=[1.0], _tp_size=1, _total_train_tokens=0,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, gradient_checkpointing=False, discopop_tau=0.05),
        _metrics={"train": Lists()}, **{**names, **settings},
    )
    shifted = torch.cat([torch.zeros(len(mask), 1), mask], dim=1)
    inputs = {"input_ids": torch.ones_like(shifted, dtype=torch.long), "attention_mask": torch.ones_like(shifted), "completion_mask": shifted}
    return DPOTrainer._compute_loss(stub, model, inputs, False)




def trl_cpo(loss_type, alpha, beta, gamma, policy, mask, average):
    sums = policy.sum(1)
    sums = sums / mask.sum(1) if average else sums
    stub = SimpleNamespace(alpha=alpha, beta=beta, simpo_gamma=gamma, loss_type=loss_type, label_smoothing=0.0, accelerator=accelerator())
    return CPOTrainer.cpo_loss(stub, *sums.chunk(2))[0].mean()


def trl_orpo(beta, policy, mask):
    """ORPO's loss is the likelihood of chosen minus TRL's odds-ratio term, here with a mean over sequences instead of TRL's over tokens."""
    means = policy.sum(1) / mask.sum(1)
    stub = SimpleNamespace(beta=beta, accelerator=accelerator())
    chosen, rejected = means.chunk(2)
    return (-chosen - ORPOTrainer.odds_ratio_loss(stub, chosen, rejected)[0]).mean()


def cases():
    """Name here, parameters here, and TRL's loss of (policy, reference, mask)."""
    dpo = lambda **settings: lambda *step: trl_dpo(settings, *step)
    plain = {"beta": 0.3}
    smooth = {"beta": 0.3, "label_smoothing": 0.1}
    yield "dpo", {"beta": 0.3, "label_smoothing": 0.0}, dpo(loss_types=["sigmoid"], **plain)
    yield "hinge", plain, dpo(loss_types=["hinge"], **plain)
    yield "ipo_avg", plain, dpo(loss_types=["ipo"], **plain)
    yield "exo_pair", smooth, dpo(loss_types=["exo_pair"], **smooth)
    yield "nca_pair", plain, dpo(loss_types=["nca_pair"], **plain)
    yield "robust", smooth, dpo(loss_types=["robust"], **smooth)
    yield "bco_pair", plain, dpo(loss_types=["bco_pair"], **plain)
    half = lambda *step: 0.5 * trl_dpo({"loss_types": ["sppo_hard"], **plain}, *step)
    yield "sppo", plain, half
    yield "aot", smooth, dpo(loss_types=["aot"], **smooth)
    yield "aot_unpaired", smooth, dpo(loss_types=["aot_unpaired"], **smooth)
    yield "apo_zero", plain, dpo(loss_types=["apo_zero"], **plain)
    yield "apo_down", plain, dpo(loss_types=["apo_down"], **plain)
    yield "discopop", {"beta": 0.05, "tau": 0.05}, dpo(loss_types=["discopop"], beta=0.05)
    yield "sigmoid_norm", plain, dpo(loss_types=["sigmoid_norm"], **plain)
    yield "ld_dpo", {"beta": 0.3, "alpha": 0.4}, dpo(loss_types=["sigmoid"], ld_alpha=0.4, **plain)
    yield "dpo_js", plain, dpo(loss_types=["sigmoid"], f_divergence_type="js_divergence", **plain)
    yield "dpo_alpha", {"beta": 0.3, "alpha": 1.0}, dpo(loss_types=["sigmoid"], f_divergence_type="forward_kl", **plain)
    # TRL's coefficient is 1 - alpha.
    yield "dpo_alpha", {"beta": 0.3, "alpha": 0.5}, dpo(loss_types=["sigmoid"], f_divergence_type="alpha_divergence", **plain)
    simpo = lambda policy, _, mask: trl_cpo("simpo", 0.0, 2.0, 0.5, policy, mask, True)
    yield "simpo", {"beta": 2.0, "gamma": 0.5}, simpo
    alphapo = lambda policy, _, mask: trl_cpo("simpo", 0.25, 2.5, 0.1, policy, mask, True)
    yield "alphapo", {"beta": 2.5, "gamma": 0.1, "alpha": 0.25}, alphapo
    yield "cpo", {"beta": 0.1, "alpha": 0.0}, lambda policy, _, mask: trl_cpo("sigmoid", 0.0, 0.1, 0.0, policy, mask, False)
    yield "orpo", {"lambda": 0.1}, lambda policy, _, mask: trl_orpo(0.1, policy, mask)


def check_pairs():
    checked = set()
    for number, (loss, params, trl) in enumerate(cases()):
        policy, reference, mask = draw(number)
        policy.requires_grad_(True)
        wanted = trl(policy, reference, mask)
        wanted.backward()
        value, gradients = ask(loss, params, policy, reference, mask)
        # The value of aot_unpaired holds the terms of the chosen answers, which is TRL's.
        assert abs(value - float(wanted.detach())) <= TOLERANCE * max(1.0, abs(float(wanted.detach()))), (loss, value, float(wanted.detach()))
        for found, expected in zip(gradients, rows(policy.grad, mask)):
            for a, b in zip(found, expected):
                assert abs(a - b) <= TOLERANCE * max(1.0, abs(b)), (loss, a, b)
        checked.add(loss)
    return checked


def check_kto():
    """KTOTrainer's own loss and z0 against kto on single answers."""
    generator = random.Random(5)
    sums = lambda: torch.tensor([[-generator.random() * 20.0] for _ in range(6)], dtype=torch.float64)
    policy, reference, kl_policy, kl_reference = sums(), sums(), sums(), sums()
    kl_policy = kl_reference + 3 * torch.rand(6, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([True, False, True, True, False, False])
    policy.requires_grad_(True)
    values = iter([kl_policy, policy])
    reference_values = iter([kl_reference, reference])
    model = lambda **_: outputs(next(values))
    stub = SimpleNamespace(
        accelerator=accelerator(), model=module(), calculate_KL=True, aux_loss_enabled=False, precompute_ref_logps=False,
        ref_model=lambda **_: outputs(next(reference_values)), loss_type="kto", beta=0.3, desirable_weight=1.2, undesirable_weight=0.8,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, gradient_checkpointing=False), _metrics={"train": Lists()}, _total_train_tokens=0, _tp_size=1,
    )
    stub._compute_kl_logps = lambda model, batch: KTOTrainer._compute_kl_logps(stub, model, batch)
    two = torch.ones(6, 2, dtype=torch.long)
    batch = {"label": labels, **{f"{kind}{name}": two for kind in ("", "KL_") for name in ("input_ids", "attention_mask", "completion_mask")}}
    wanted = KTOTrainer._compute_loss(stub, model, batch, False)
    wanted.backward()
    z0 = max(0.0, float((kl_policy - kl_reference).mean()))
    question = {"loss": "kto", "params": {"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.8}, "baseline": z0,
                "policy": policy.detach().flatten().tolist(), "reference": reference.flatten().tolist(), "labels": labels.double().tolist()}
    value, gradients = joust(question)
    assert abs(value - float(wanted.detach())) <= TOLERANCE, (value, float(wanted.detach()))
    for a, b in zip(gradients, policy.grad.flatten().tolist()):
        assert abs(a - b) <= TOLERANCE, (a, b)


def check_gradients():
    """The losses of GRPOTrainer and RLOOTrainer on given advantages, with an older sampler, clipping and k3."""
    generator = torch.Generator().manual_seed(9)
    rows_, width = 6, 8
    mask = torch.zeros(rows_, width)
    for row, length in enumerate([3, 8, 5, 1, 6, 7]):
        mask[row, :length] = 1
    old = -3 * torch.rand(rows_, width, generator=generator) * mask
    noise = lambda: 0.25 * torch.randn(rows_, width, generator=generator) * mask
    reference, policy = old + noise(), (old + noise()).requires_grad_(True)
    advantages = torch.randn(rows_, generator=generator)
    ids = torch.zeros(rows_, width, dtype=torch.long)
    inputs = {"prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1] + 1, "completion_ids": ids, "completion_mask": mask, "advantages": advantages,
              "old_per_token_logps": old, "old_logps": old.sum(1), "ref_per_token_logps": reference}
    tools = accelerator()
    tools.reduce = lambda value, reduction: value
    stub = SimpleNamespace(
        accelerator=tools, model=SimpleNamespace(training=True), aux_loss_enabled=False, _metrics={"train": Lists()}, epsilon_low=0.2, epsilon_high=0.2,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level="token", beta=0.04, loss_type="grpo", use_vllm=False,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None), current_gradient_accumulation_steps=1, _entropy_bonus_enabled=False,
        use_adaptive_entropy=False, _get_per_token_logps_and_entropies=lambda *_, **__: (policy, torch.zeros_like(mask), None),
    )
    for name, params, trainer in [("grpo", {"beta": 0.04, "epsilon": 0.2}, GRPOTrainer), ("rloo", {"beta": 0.05, "epsilon": 0.2}, RLOOTrainer)]:
        policy.grad = None
        wanted = trainer._compute_loss(stub, None, inputs)
        wanted.backward()
        question = {"loss": name, "params": params, "advantages": advantages.tolist(), "policy": rows(policy.detach(), mask),
                    "reference": rows(reference, mask), "old": rows(old, mask)}
        value, gradients = joust(question)
        assert abs(value - float(wanted.detach())) <= TOLERANCE, (name, value, float(wanted.detach()))
        for a, b in zip(gradients, sum(rows(policy.grad, mask), [])):
            assert abs(a - b) <= TOLERANCE, (name, a, b)


class Lists(dict):
    """Metrics by name, made on demand."""

    def __missing__(self, name):
        self[name] = []
        return self[name]


if __name__ == "__main__":
    losses = check_pairs()
    check_kto()
    check_gradients()
    print(f"trl: value and gradient of {len(losses) + 3} losses agree within {TOLERANCE}")
