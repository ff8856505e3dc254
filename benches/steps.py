#!/usr/bin/env python3
"""Time one mask-training step (MLM) of `tamt` against PyTorch, alternately, on this machine's CPU.

A step is forward, backward, clipping and AdamW for a BERT encoder with frozen random weights, a score per prunable weight
and a trained MLM head. The sides take turns, `--steps` steps a turn, so that noise of the machine falls on all of them;
each has its own process, so that peak memory is its own. PyTorch runs in two ways:

  usual  BertForMaskedLM; every forward multiplies each weight by its binarised score; logits at every position; AdamW
  tuned  by hand: masked weights written once into a reused buffer, score gradients made in place, only the rows of the
         batch masked in the embedding, the head at masked positions only, SDPA attention, fused AdamW

Install the peers from PyPI: pip install torch transformers
Build tamt's side with:      cargo build --release -p tamt --example mask_training_step

Of PyTorch's peak memory, "imports" is what its libraries take before any model exists; "net/tamt" is the ratio without
it. The first losses of both PyTorch variants agree (the same data and dropout), because both compute the same step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

TAMT = Path(__file__).parent.parent / "target/release/examples/mask_training_step"
SHAPE = {"layers": 6, "hidden": 384, "heads": 12, "ffn": 1536, "vocab": 30522, "batch": 16, "length": 128}
THRESHOLD = 0.01
FIRST_WORD, MASK_TOKEN = 1000, 103


# ---- the PyTorch side ----------------------------------------------------------------------------------------------


def resident_bytes(key):
    """VmHWM (peak) or VmRSS (now) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def build(arguments):
    """A BERT with masks in it, the function from a batch to its loss, and the optimiser."""
    import torch
    import torch.nn.functional as F
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=arguments.vocab, hidden_size=arguments.hidden, num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads, intermediate_size=arguments.ffn,
        max_position_embeddings=max(512, arguments.length),
        hidden_dropout_prob=arguments.dropout, attention_probs_dropout_prob=arguments.dropout,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    model = BertForMaskedLM(config).train()
    compute = torch.bfloat16 if arguments.precision == "bf16" else torch.float32
    zero = torch.zeros((), dtype=compute)

    class Binarise(torch.autograd.Function):
        @staticmethod
        def forward(_, score):
            return (score > THRESHOLD).float()

        @staticmethod
        def backward(_, gradient):
            return gradient

    class MaskedLinear(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, score, weight, bias, masked):
            x = x.to(compute)
            torch.where(score > THRESHOLD, weight, zero, out=masked)
            ctx.save_for_backward(x, weight, masked)
            return F.linear(x, masked, bias)

        @staticmethod
        def backward(ctx, gradient):
            x, weight, masked = ctx.saved_tensors
            score_gradient = (gradient.flatten(0, -2).T @ x.flatten(0, -2)).float().mul_(weight)
            return gradient @ masked, score_gradient, None, None, None

    class MaskedEmbedding(torch.autograd.Function):
        @staticmethod
        def forward(ctx, ids, score, weight, padding):
            rows = weight[ids]
            ctx.save_for_backward(ids, rows)
            ctx.shape, ctx.padding = score.shape, padding
            return rows * (score[ids] > THRESHOLD)

        @staticmethod
        def backward(ctx, gradient):
            ids, rows = ctx.saved_tensors
            score_gradient = rows.new_zeros(ctx.shape)
            score_gradient.index_add_(0, ids.flatten(), (gradient * rows).flatten(0, -2))
            score_gradient[ctx.padding] = 0
            return None, score_gradient, None, None

    def usual(module, score):
        def forward(x):
            weight = module.weight * Binarise.apply(score)
            if isinstance(module, torch.nn.Embedding):
                return F.embedding(x, weight, module.padding_idx)
            return F.linear(x, weight, module.bias)

        return forward

    def tuned(module, score):
        if isinstance(module, torch.nn.Embedding):
            return lambda ids: MaskedEmbedding.apply(ids, score, module.weight, module.padding_idx)
        weight, bias = module.weight.to(compute), module.bias.to(compute)
        masked = torch.empty_like(weight)
        return lambda x: MaskedLinear.apply(x, score, weight, bias, masked)

    model.requires_grad_(False)
    scores = []
    for name, module in model.bert.named_modules():
        if isinstance(module, torch.nn.Linear) or name == "embeddings.word_embeddings":
            score = (0.02 * (torch.rand_like(module.weight) > arguments.sparsity)).requires_grad_()
            module.forward = (tuned if arguments.variant == "tuned" else usual)(module, score)
            scores.append(score)
    decoder = model.cls.predictions.decoder.weight
    head = [p.requires_grad_() for p in model.cls.parameters() if p is not decoder]

    def loss(input_ids, labels):
        with torch.autocast("cpu", torch.bfloat16) if arguments.precision == "bf16" else nullcontext():
            if arguments.variant == "usual":
                return model(input_ids, labels=labels).loss
            hidden = model.bert(input_ids).last_hidden_state
            chosen = labels != -100
            return F.cross_entropy(model.cls(hidden[chosen]).float(), labels[chosen])

    optimiser = torch.optim.AdamW(
        scores + head, lr=5e-5, eps=1e-8, weight_decay=0.0, fused=True if arguments.variant == "tuned" else None
    )
    return scores + head, loss, optimiser


def worker(arguments):
    """Answer each line `{"steps": n}` on stdin with a line of n step times, until stdin ends."""
    import torch
    from transformers import BertForMaskedLM  # noqa: F401  imported here so that what the libraries take is known

    torch.set_num_threads(arguments.threads)
    imported = resident_bytes("VmRSS")
    parameters, loss_of, optimiser = build(arguments)
    generator = torch.Generator().manual_seed(1)
    shape = (arguments.batch, arguments.length)
    first_loss = None
    for line in sys.stdin:
        seconds = []
        for _ in range(json.loads(line)["steps"]):
            clean = torch.randint(min(FIRST_WORD, arguments.vocab // 2), arguments.vocab, shape, generator=generator)
            chosen = torch.rand(shape, generator=generator) < 0.15
            input_ids, labels = torch.where(chosen, MASK_TOKEN, clean), torch.where(chosen, clean, -100)
            start = time.perf_counter()
            loss = loss_of(input_ids, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - start)
            first_loss = loss.item() if first_loss is None else first_loss
        answer = {
            "step_seconds": seconds,
            "peak_rss_bytes": resident_bytes("VmHWM"),
            "imported_rss_bytes": imported,
            "first_loss": first_loss,
        }
        print(json.dumps(answer), flush=True)


# ---- the two sides as processes ------------------------------------------------------------------------------------


def shape_flags(arguments):
    names = [*SHAPE, "dropout", "sparsity", "precision", "threads"]
    return [text for name in names for text in (f"--{name}", str(getattr(arguments, name)))]


class Torch:
    def __init__(self, variant, arguments):
        self.name = f"PyTorch, {variant}"
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, __file__, "--worker", "--variant", variant, *shape_flags(arguments)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.run(arguments.warmup)

    def run(self, steps):
        try:
            self.process.stdin.write(json.dumps({"steps": steps}) + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            sys.exit(f"{self.name}: the worker ended with status {self.process.wait()}")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Tamt:
    name = "tamt"

    def __init__(self, arguments):
        self.command = [str(arguments.tamt), *shape_flags(arguments), "--warmup", str(arguments.warmup)]

    def run(self, steps):
        result = subprocess.run([*self.command, "--steps", str(steps)], stdout=subprocess.PIPE, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(self.command)}: ended with status {result.returncode}")
        return json.loads(result.stdout)

    def close(self):
        pass


def compare(arguments):
    variants = ["usual", "tuned"] if arguments.variant == "both" else [arguments.variant]
    sides = [Torch(variant, arguments) for variant in variants]
    if not arguments.peers_only:
        sides.append(Tamt(arguments))
    turns = {side.name: [] for side in sides}
    for round_number in range(arguments.rounds):
        for side in sides:
            turns[side.name].append(side.run(arguments.steps))
        print(f"round {round_number + 1} of {arguments.rounds} done", file=sys.stderr)
    for side in sides:
        side.close()

    results = {}
    for name, answers in turns.items():
        seconds = [second for answer in answers for second in answer["step_seconds"]]
        results[name] = {
            "median_seconds": statistics.median(seconds),
            "fastest_seconds": min(seconds),
            "peak_rss_bytes": max(answer["peak_rss_bytes"] for answer in answers),
            "imported_rss_bytes": answers[0].get("imported_rss_bytes"),
            "first_loss": answers[0].get("first_loss"),
        }
    ours = results.get(Tamt.name)
    columns = ("median s", "fastest s", "peak MiB", "imports", "time/tamt", "memory/tamt", "net/tamt", "first loss")
    print(f"{'':16}" + "".join(f"{column:>12}" for column in columns))
    for name, result in results.items():
        ratios = [f"{result[key] / ours[key]:.2f}" if ours else "-" for key in ("median_seconds", "peak_rss_bytes")]
        net = result["peak_rss_bytes"] - (result["imported_rss_bytes"] or 0)
        ratios.append(f"{net / ours['peak_rss_bytes']:.2f}" if ours else "-")
        loss = "-" if result["first_loss"] is None else f"{result['first_loss']:.5f}"
        imports = "-" if result["imported_rss_bytes"] is None else f"{result['imported_rss_bytes'] / 2**20:.0f}"
        cells = [f"{result['median_seconds']:.3f}", f"{result['fastest_seconds']:.3f}"]
        cells += [f"{result['peak_rss_bytes'] / 2**20:.0f}", imports, *ratios, loss]
        print(f"{name:16}" + "".join(f"{cell:>12}" for cell in cells))
    if arguments.json:
        settings = {name: getattr(arguments, name) for name in [*SHAPE, "dropout", "sparsity", "precision", "threads"]}
        arguments.json.write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--dropout", type=float, default=0.1, help="default 0.1")
    parser.add_argument("--sparsity", type=float, default=0.7, help="share of dropped weights at the start; default 0.7")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="bf16: autocast in PyTorch")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: the CPUs usable here")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side; default 4")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a turn; default 3")
    parser.add_argument("--warmup", type=int, default=1, help="untimed steps, tamt: of each turn; default 1")
    parser.add_argument("--variant", choices=("both", "usual", "tuned"), default="both", help="PyTorch variants to run")
    parser.add_argument("--tamt", type=Path, default=TAMT, help="the built example mask_training_step")
    parser.add_argument("--peers-only", action="store_true", help="run PyTorch alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments)
    if arguments.rounds < 1 or arguments.steps < 1 or arguments.warmup < 0:
        parser.error("--rounds and --steps are at least 1, --warmup at least 0")
    if not arguments.peers_only and not arguments.tamt.is_file():
        parser.error(f"{arguments.tamt} does not exist: build it as --help says, or give --tamt or --peers-only")
    compare(arguments)


if __name__ == "__main__":
    main()
