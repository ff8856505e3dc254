#!/usr/bin/env python3
"""Make `mask_bits.json` and `mask_bits.safetensors`: the mask bits of whole mask trainings in f64. `README.md` has more.

The inputs are no files: weights and tokens are numbers of SplitMix64, which the test computes too.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

from method import MaskedModel, adamw, bert_adam, cosine_distance, layer_outputs, linear, magnitude_mask
from method import mean_over_layers, mlm_loss

MODELS, STEPS, RETHRESHOLD_EVERY, BATCH, LENGTH = 20, 30, 10, 4, 16
LEARNING_RATE = 2e-3
# Two scores this close are equal in f32 arithmetic: the scores' own spacing is 2e-9, and an update has a few roundings.
TIE = 1e-8


# ---- numbers that another program computes too ---------------------------------------------------------------------


def mixed(seed, count):
    """`count` numbers of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def digest(data, start=0xCBF29CE484222325):
    """64 bits of FNV-1a."""
    for byte in data:
        start = ((start ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return start


def weights(seed, name, shape):
    """f32 numbers, uniform within 0.35 of 0 in matrices, and within 0.1 of the neutral value in vectors."""
    count = int(np.prod(shape))
    unit = (mixed(digest(f"{seed} {name}".encode()), count) >> np.uint64(40)).astype(np.float32) / np.float32(2**24)
    unit = 2 * unit - 1
    if len(shape) == 2:
        return (unit * np.float32(0.35)).reshape(shape)
    norm = name.lower().replace("_", "").endswith("layernorm.weight")
    return np.float32(1 if norm else 0) + np.float32(0.1) * unit


def batch(seed, step, vocabulary, first, last):
    """Tokens without special ones but at both ends of a sequence, and their corruption: `(clean, corrupted, labels)`."""
    draws = mixed(digest(f"{seed} step {step}".encode()), 3 * BATCH * LENGTH).reshape(3, BATCH, LENGTH)
    clean, noise = (5 + (draw >> np.uint64(33)).astype(np.int64) % (vocabulary - 5) for draw in draws[:2])
    fate = (draws[2] >> np.uint64(40)).astype(np.int64)
    clean[:, 0], clean[:, -1] = first, last
    chosen = fate % 100 < 15
    chosen[:, 0] = chosen[:, -1] = False
    chosen[:, 1] = True
    corrupted = np.where(fate // 100 % 10 < 8, 4, np.where(fate // 100 % 10 == 8, noise, clean))
    corrupted, labels = np.where(chosen, corrupted, clean), np.where(chosen, clean, -100)
    return tuple(torch.from_numpy(x) for x in (clean, corrupted, labels))


# ---- models --------------------------------------------------------------------------------------------------------


def settings(index):
    """`config.json` of a model, and its sparsity."""
    kind = ("bert", "roberta")[index % 2]
    config = {
        "model_type": kind,
        "vocab_size": 60 + 7 * (index % 9),
        "hidden_size": (16, 24, 32)[index % 3],
        "num_hidden_layers": 1 + index // 2 % 3,
        "num_attention_heads": (2, 4)[index // 4 % 2],
        "intermediate_size": (32, 48, 40)[index // 3 % 3],
        "max_position_embeddings": LENGTH + 4,
        "type_vocab_size": (2, 1)[index % 2],
        "layer_norm_eps": (1e-12, 1e-5)[index % 2],
        "hidden_act": ("gelu", "gelu", "gelu_new", "gelu_new")[index % 4],
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": (0, 1)[index % 2],
    }
    return config, (0.7, 0.5, 0.9)[index // 2 % 3]


def model_of(config, seed):
    family = {"bert": "Bert", "roberta": "Roberta"}[config["model_type"]]
    options = {key: value for key, value in config.items() if key != "model_type"}
    options = getattr(transformers, f"{family}Config")(**options, attn_implementation="eager")
    model = getattr(transformers, f"{family}ForMaskedLM")(options).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(weights(seed, name, tuple(parameter.shape))))
    return model


class ExactMasks(MaskedModel):
    """Thresholds that drop exactly `floor(n s)` scores: of equal scores the lower index is dropped first."""

    def rethreshold(self):
        self.cuts = {}
        for name, score in self.scores.items():
            flat = score.detach().flatten()
            order = flat.argsort(stable=True)
            at = int(order[int(flat.numel() * self.sparsity) - 1])
            self.cuts[name] = at
            self.thresholds[name] = flat[at].clone()

    def bits(self):
        """All masks, one after the other by name."""
        result = []
        for name, score in sorted(self.scores.items()):
            flat, threshold = score.detach().flatten(), self.thresholds[name]
            kept = flat > threshold
            if hasattr(self, "cuts"):
                kept |= (flat == threshold) & (torch.arange(flat.numel()) > self.cuts[name])
            result.append(kept)
        return torch.cat(result).numpy()

    def _forward(self, name, module):
        def forward(x):
            score = self.scores[name]
            kept = score.detach() > self.thresholds[name]
            if hasattr(self, "cuts"):
                index = torch.arange(score.numel()).view_as(score)
                kept |= (score.detach() == self.thresholds[name]) & (index > self.cuts[name])
            # Straight through: the gradient of a score is that of its bit.
            weight = module.weight * (kept.to(score.dtype) + score - score.detach())
            if isinstance(module, torch.nn.Embedding):
                return torch.nn.functional.embedding(x, weight, module.padding_idx)
            return torch.nn.functional.linear(x, weight, module.bias)

        return forward


def train(config, sparsity, seed, objective):
    """Mask bits after every step, and the least distance of a score from its threshold that is not 0."""
    teacher, masked = model_of(config, seed), ExactMasks(model_of(config, seed), sparsity)
    parameters = [score for _, score in sorted(masked.scores.items())]
    head = [p for name, p in masked.model.named_parameters() if "predictions" in name or "lm_head" in name]
    if objective == "kd":
        optimiser = bert_adam(parameters, LEARNING_RATE)
    else:
        optimiser = adamw(parameters + [p.requires_grad_() for p in head], LEARNING_RATE)
    first, last = ((2, 3), (0, 2))[config["model_type"] == "roberta"]
    start, bits = masked.bits(), []
    for step in range(STEPS):
        clean, corrupted, labels = batch(seed, step, config["vocab_size"], first, last)
        if objective == "mlm":
            loss = mlm_loss(masked.model(corrupted).logits, labels)
        else:
            with torch.no_grad():
                target = layer_outputs(teacher, clean)
            loss = mean_over_layers(cosine_distance, layer_outputs(masked.model, clean), target)
        loss.backward()
        optimiser.step(linear(step))
        if (step + 1) % RETHRESHOLD_EVERY == 0:
            masked.rethreshold()
        masked.observe_margin()
        bits.append(masked.bits())
    return start, bits, masked.margin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent)
    parser.add_argument("--with-ties", action="store_true", help="keep runs in which a score comes close to its threshold")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs, tensors, drawn, bits_changed = [], {}, 0, 0
    for index in range(MODELS):
        config, sparsity = settings(index)
        for objective in ("kd", "mlm"):
            for seed in range(1000 * index, 1000 * index + 100):
                drawn += 1
                start, bits, margin = train(config, sparsity, seed, objective)
                if args.with_ties or margin >= TIE:
                    break
            changed = int((bits[-1] != start).sum())
            bits_changed += changed
            packed = [np.packbits(step, bitorder="little") for step in bits]
            run = {"objective": objective, "seed": seed, "sparsity": sparsity, "margin": margin, "changed": changed}
            runs.append(run | {"digests": [f"{digest(step.tobytes()):016x}" for step in packed], "config": config})
            tensors[f"{index}.{objective}"] = packed[-1]
            print(f"{index} {objective}: seed {seed}, {bits[-1].size} bits, {changed} change, margin {margin:.1e}", flush=True)
    rows = ",\n".join(json.dumps(run) for run in runs)
    (args.output_dir / "mask_bits.json").write_text(f"[\n{rows}\n]\n")
    save_file(tensors, args.output_dir / "mask_bits.safetensors")
    print(f"{len(runs)} runs of {drawn} drawn, {bits_changed} bits change")


if __name__ == "__main__":
    main()
