#!/usr/bin/env python3
"""Time steps of `tamt` against PyTorch and ONNX Runtime, in turns, on this machine's CPU.

The sides take turns, `--steps` steps a turn, so that noise of the machine falls on all of them; each has its own process,
so that peak memory is its own. Encoders are random BERTs, tokens are random, a share --sparsity of the weights is dropped.

--work mask-training   MLM: forward, backward, clipping and AdamW for frozen weights with a score each, and a trained MLM head
  usual  BertForMaskedLM; every forward multiplies each weight by its binarised score; logits at every position; AdamW
  tuned  by hand: masked weights written once into a reused buffer, score gradients made in place, only the rows of the
         batch masked in the embedding, the head at masked positions only, SDPA attention, fused AdamW
--work fine-tuning     a ticket on two classes: forward, backward, clipping and AdamW for all surviving weights
  hooks  BertForSequenceClassification through torch.nn.utils.prune, as the reference fine-tunes a ticket; fused AdamW
--work inference       the hidden states of the last layer, with zeros where weights are dropped
  torch  BertModel in inference mode
  onnx   the same exported, in ONNX Runtime, which has f32 only on a CPU

    pip install torch transformers onnx onnxruntime onnxscript
    cargo build --release

Of PyTorch's peak memory, "imports" is what its libraries take before any model exists; "net/tamt" is the ratio without
it. The first losses of both variants of mask training agree (the same data and dropout), because both compute the same step.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

TAMT = Path(__file__).parent.parent / "target/release/tamt"
SHAPE = {"layers": 6, "hidden": 384, "heads": 12, "ffn": 1536, "vocab": 30522, "batch": 16, "length": 128}
THRESHOLD = 0.01
PEERS = {"mask-training": ["usual", "tuned"], "fine-tuning": ["hooks"], "inference": ["torch", "onnx"]}
FIRST_WORD, MASK_TOKEN = 1000, 103


# ---- the PyTorch side ----------------------------------------------------------------------------------------------


def resident_bytes(key):
    """VmHWM (peak) or VmRSS (now) of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {key}")


def configuration(arguments):
    from transformers import BertConfig

    config = BertConfig(
        vocab_size=arguments.vocab, hidden_size=arguments.hidden, num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads, intermediate_size=arguments.ffn,
        max_position_embeddings=max(512, arguments.length),
        hidden_dropout_prob=arguments.dropout, attention_probs_dropout_prob=arguments.dropout,
    )  # fmt: skip
    config._attn_implementation = "sdpa"
    return config


def autocast(arguments):
    import torch

    return torch.autocast("cpu", torch.bfloat16) if arguments.precision == "bf16" else nullcontext()


def clip_and_update(parameters, optimiser):
    import torch

    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def mask_training(arguments):
    """A function that draws a batch and takes a step; it gives the seconds of the step, and the loss."""
    import torch
    import torch.nn.functional as F
    from transformers import BertForMaskedLM

    model = BertForMaskedLM(configuration(arguments)).train()
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
        with autocast(arguments):
            if arguments.variant == "usual":
                return model(input_ids, labels=labels).loss
            hidden = model.bert(input_ids).last_hidden_state
            chosen = labels != -100
            return F.cross_entropy(model.cls(hidden[chosen]).float(), labels[chosen])

    optimiser = torch.optim.AdamW(
        scores + head, lr=5e-5, eps=1e-8, weight_decay=0.0, fused=True if arguments.variant == "tuned" else None
    )
    generator = torch.Generator().manual_seed(1)
    shape = (arguments.batch, arguments.length)

    def step():
        clean = torch.randint(min(FIRST_WORD, arguments.vocab // 2), arguments.vocab, shape, generator=generator)
        chosen = torch.rand(shape, generator=generator) < 0.15
        input_ids, labels = torch.where(chosen, MASK_TOKEN, clean), torch.where(chosen, clean, -100)
        start = time.perf_counter()
        value = loss(input_ids, labels)
        value.backward()
        clip_and_update(scores + head, optimiser)
        return time.perf_counter() - start, value.item()

    return step


def masked_layers(model):
    import torch

    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)]


def fine_tuning(arguments):
    import torch
    from torch.nn.utils import prune
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification(configuration(arguments)).train()
    words = model.bert.embeddings.word_embeddings
    for module in [*masked_layers(model.bert), words]:
        prune.random_unstructured(module, "weight", amount=arguments.sparsity)
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=2e-5, eps=1e-8, weight_decay=0.0, fused=True)
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(arguments.batch) % 2

    def step():
        ids = torch.randint(0, arguments.vocab, (arguments.batch, arguments.length), generator=generator)
        start = time.perf_counter()
        with autocast(arguments):
            loss = model(ids, labels=labels).loss
        loss.backward()
        clip_and_update(parameters, optimiser)
        return time.perf_counter() - start, loss.item()

    return step


def pruned_encoder(arguments):
    import torch
    from transformers import BertModel

    model = BertModel(configuration(arguments), add_pooling_layer=False).eval().requires_grad_(False)
    for module in masked_layers(model):
        module.weight *= torch.rand_like(module.weight) > arguments.sparsity
    return model


def inference_torch(arguments):
    import torch

    model = pruned_encoder(arguments)
    generator = torch.Generator().manual_seed(1)

    def step():
        ids = torch.randint(0, arguments.vocab, (arguments.batch, arguments.length), generator=generator)
        start = time.perf_counter()
        with torch.inference_mode(), autocast(arguments):
            model(ids)
        return time.perf_counter() - start, None

    return step


def inference_onnx(arguments):
    import numpy
    import onnxruntime
    import torch

    model = pruned_encoder(arguments)

    class LastHiddenState(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids):
            return self.model(ids).last_hidden_state

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = arguments.threads
    with tempfile.TemporaryDirectory() as root:
        path = f"{root}/model.onnx"
        example = torch.zeros((arguments.batch, arguments.length), dtype=torch.long)
        torch.onnx.export(LastHiddenState(), (example,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    generator = numpy.random.default_rng(1)

    def step():
        ids = generator.integers(0, arguments.vocab, (arguments.batch, arguments.length))
        start = time.perf_counter()
        session.run(None, {name: ids})
        return time.perf_counter() - start, None

    return step


BUILD = {
    "usual": mask_training, "tuned": mask_training, "hooks": fine_tuning,
    "torch": inference_torch, "onnx": inference_onnx,
}  # fmt: skip


def worker(arguments):
    """Answer each line `{"steps": n}` on stdin with a line of n step times, until stdin ends."""
    import torch
    from transformers import BertForMaskedLM  # noqa: F401  imported here so that what the libraries take is known

    # what a library prints must not come between the answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    imported = resident_bytes("VmRSS")
    step = BUILD[arguments.variant](arguments)
    first_loss = None
    for line in sys.stdin:
        seconds = []
        for _ in range(json.loads(line)["steps"]):
            second, loss = step()
            seconds.append(second)
            first_loss = loss if first_loss is None else first_loss
        answer = {
            "step_seconds": seconds,
            "peak_rss_bytes": resident_bytes("VmHWM"),
            "imported_rss_bytes": imported,
            "first_loss": first_loss,
        }
        print(json.dumps(answer), file=answers, flush=True)


# ---- the two sides as processes ------------------------------------------------------------------------------------


def shape_flags(arguments):
    names = [*SHAPE, "dropout", "sparsity", "threads"]
    return [text for name in names for text in (f"--{name}", str(getattr(arguments, name)))]


class Peer:
    def __init__(self, variant, arguments):
        self.name = "ONNX Runtime" if variant == "onnx" else f"PyTorch, {variant}"
        environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, __file__, "--worker", "--variant", variant, *shape_flags(arguments)]
        command += ["--precision", arguments.precision]
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
        flags = ["--batch-size" if flag == "--batch" else flag for flag in shape_flags(arguments)]
        self.command = [
            str(arguments.tamt), "bench", "--work", arguments.work, *flags, "--warmup", str(arguments.warmup),
            "--precision", arguments.tamt_precision or arguments.precision, "--kernel", arguments.kernel,
            "--no-operations", "--json", "--quiet",
        ]  # fmt: skip

    def run(self, steps):
        result = subprocess.run([*self.command, "--steps", str(steps)], stdout=subprocess.PIPE, text=True)
        if result.returncode != 0:
            sys.exit(f"{' '.join(self.command)}: ended with status {result.returncode}")
        report = json.loads(result.stdout)
        return {"step_seconds": report["steps"][0]["seconds"], "peak_rss_bytes": report["peak_rss_bytes"]}

    def close(self):
        pass


def compare(arguments):
    variants = PEERS[arguments.work] if arguments.variant == "all" else [arguments.variant]
    sides = [Peer(variant, arguments) for variant in variants]
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
        names = ["work", *SHAPE, "dropout", "sparsity", "precision", "kernel", "threads"]
        settings = {name: getattr(arguments, name) for name in names}
        arguments.json.write_text(json.dumps({"settings": settings, "results": results}, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", choices=list(PEERS), default="mask-training", help="default mask-training")
    for name, default in SHAPE.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"default {default}")
    parser.add_argument("--dropout", type=float, default=0.1, help="default 0.1")
    parser.add_argument("--sparsity", type=float, default=0.7, help="share of dropped weights at the start; default 0.7")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32", help="bf16: autocast in PyTorch")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: the CPUs usable here")
    parser.add_argument("--rounds", type=int, default=4, help="turns of each side; default 4")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a turn; default 3")
    parser.add_argument("--warmup", type=int, default=1, help="untimed steps, tamt: of each turn; default 1")
    parser.add_argument("--kernel", choices=("auto", "dense", "sparse"), default="auto", help="tamt's; default auto")
    parser.add_argument("--tamt-precision", choices=("f32", "bf16"), help="tamt's, where it is not to be the peers'")
    parser.add_argument("--variant", choices=("all", *BUILD), default="all", help="peers to run")
    parser.add_argument("--tamt", type=Path, default=TAMT, help="the built command")
    parser.add_argument("--peers-only", action="store_true", help="run the peers alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments)
    if arguments.rounds < 1 or arguments.steps < 1 or arguments.warmup < 0:
        parser.error("--rounds and --steps are at least 1, --warmup at least 0")
    if not arguments.peers_only and not arguments.tamt.is_file():
        parser.error(f"{arguments.tamt} does not exist: build it as --help says, or give --tamt or --peers-only")
    if arguments.variant not in ("all", *PEERS[arguments.work]):
        parser.error(f"--variant {arguments.variant} is no peer of --work {arguments.work}")
    compare(arguments)


if __name__ == "__main__":
    main()
