#!/usr/bin/env python3
"""Sizes on disk, resident memory, and seconds to the first embedding: dense, applied and packed models, and one base with
ten tickets.

    python benches/sizes.py --model MODEL --work DIR
    python benches/sizes.py --bert-base --work DIR      # random weights in the shape of BERT-base, with MODEL's tokenizer

Each line of the table is a directory that `tamt` writes below DIR. The columns:

* disk: the bytes of the weights file, and of the ticket beside it (1 MB = 10^6 bytes).
* load: the time of `tamt encode` of an empty text, which ends with an error once the model is read.
* first embedding: the time of `tamt encode` of one sentence, from the start of the process to its end.
* resident: the largest resident set of that process (`ru_maxrss`), in MiB.

Times are those of a clock and of the processor (user and system, all threads), each the smallest of --rounds rounds, in which
the lines take turns; the files are in the page cache. Packages: numpy and
safetensors.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import time
from pathlib import Path

SENTENCE = "A man is playing a guitar on the stage.\n"


def run(command, check=True):
    """Runs a command: seconds of a clock and of the processor, and the largest resident set in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    error = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if check and status != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\n{error}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def cast(source, target, dtype):
    """The model with all floating-point tensors in `dtype`."""
    from safetensors.numpy import load_file, save_file
    import numpy

    target.mkdir()
    for path in source.iterdir():
        if path.is_file() and path.name != "model.safetensors":
            shutil.copy(path, target)
    tensors = load_file(source / "model.safetensors")
    floats = (numpy.float16, numpy.float32)
    tensors = {name: value.astype(dtype) if value.dtype in floats else value for name, value in tensors.items()}
    save_file(tensors, target / "model.safetensors", {"format": "pt"})


def bert_base(tokenizer, target):
    """Random weights in the shape of BERT-base, in half precision."""
    from safetensors.numpy import save_file
    import numpy

    random = numpy.random.default_rng(1)
    shapes = {f"embeddings.{name}_embeddings.weight": (rows, 768)
              for name, rows in [("word", 30522), ("position", 512), ("token_type", 2)]}
    matrices = {"attention.self.query": (768, 768), "attention.self.key": (768, 768), "attention.self.value": (768, 768),
                "attention.output.dense": (768, 768), "intermediate.dense": (3072, 768), "output.dense": (768, 3072)}
    linear = {f"encoder.layer.{layer}.{name}": shape for layer in range(12) for name, shape in matrices.items()}
    linear["pooler.dense"] = (768, 768)
    for name, shape in linear.items():
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    norms = ["attention.output.LayerNorm", "output.LayerNorm"]
    norms = ["embeddings.LayerNorm"] + [f"encoder.layer.{layer}.{norm}" for layer in range(12) for norm in norms]
    for norm in norms:
        shapes |= {f"{norm}.weight": (768,), f"{norm}.bias": (768,)}
    tensors = {name: (0.02 * random.standard_normal(shape, "float32")).astype("float16") for name, shape in shapes.items()}
    target.mkdir()
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = {"model_type": "bert", "architectures": ["BertModel"], "vocab_size": 30522, "hidden_size": 768,
              "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
              "max_position_embeddings": 512, "type_vocab_size": 2, "dtype": "float16"}
    (target / "config.json").write_text(json.dumps(config))
    for path in tokenizer.iterdir():
        if path.name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
            shutil.copy(path, target)


def apart(function, *arguments):
    """Calls a function in a process of its own: a child's `ru_maxrss` begins with the resident set of its parent."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode != 0:
        raise SystemExit(1)


def lines(tamt, work, source, bert):
    """The table's lines: name, the flags of `tamt encode`, and the files that count."""
    base = work / "base-f16"
    if bert:
        apart(bert_base, source, base)
    else:
        apart(cast, source, base, "float16")
    single = work / "base-f32"
    apart(cast, base, single, "float32")
    found = [("dense, F16", ["--model", base], [base]), ("dense, F32", ["--model", single], [single])]
    tickets = []
    for number, sparsity in enumerate([0.7, 0.9] + 8 * [0.7]):
        ticket = work / f"ticket-{number}"
        method = ["magnitude"] if number < 2 else ["random", "--seed", number]
        run([tamt, "find", "--model", base, "--method", *method, "--sparsity", sparsity, "--output-dir", ticket])
        tickets.append(ticket)
    for ticket, name in [(tickets[0], "70"), (tickets[1], "90")]:
        of = ["--model", base, "--ticket", ticket]
        applied = work / f"applied-{name}"
        run([tamt, "apply", *of, "--output-dir", applied])
        found.append((f"applied, {name} %, F16", ["--model", applied], [applied]))
        found.append((f"base F16 and ticket, {name} %", of, [base, ticket]))
        for precision in ["bf16", "f32"]:
            packed = work / f"packed-{name}-{precision}"
            run([tamt, "pack", *of, "--precision", precision, "--output-dir", packed])
            found.append((f"packed, {name} %, {precision.upper()}", ["--model", packed], [packed]))
    found.append(("base F16 and ten tickets", ["--model", base, "--ticket", tickets[9]], [base, *tickets]))
    packed = work / "packed-70-bf16"
    found.append(("ten packed models, BF16", ["--model", packed], 8 * [packed] + 2 * [packed]))
    return found


def weights(directory):
    names = ["model.safetensors", "model.packed.safetensors", "ticket.safetensors"]
    return sum((directory / name).stat().st_size for name in names if (directory / name).is_file())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tamt", default="target/release/tamt")
    parser.add_argument("--model", type=Path, required=True, help="directory with model.safetensors and a tokenizer")
    parser.add_argument("--bert-base", action="store_true", help="random weights in the shape of BERT-base")
    parser.add_argument("--work", type=Path, required=True, help="new directory of the models")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--precision", default="auto", help="precision of products, as for tamt encode")
    parser.add_argument("--kernel", default="auto", help="kernel, as for tamt encode")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True)
    (arguments.work / "empty.txt").write_text("")
    (arguments.work / "one.txt").write_text(SENTENCE)
    found = lines(arguments.tamt, arguments.work, arguments.model, arguments.bert_base)
    measured = {name: [] for name, _, _ in found}
    for _ in range(arguments.rounds):
        for name, flags, _ in found:
            encode = [arguments.tamt, "encode", *flags, "--quiet", "--output", arguments.work / "vectors.safetensors"]
            encode += ["--precision", arguments.precision, "--kernel", arguments.kernel, "--input"]
            *load, _ = run([*encode, arguments.work / "empty.txt"], check=False)
            *first, resident = run([*encode, arguments.work / "one.txt"])
            measured[name].append((*load, *first, resident))
    print("| | disk, MB | load, s (processor) | first embedding, s (processor) | resident, MiB |\n|---|---|---|---|---|")
    results = []
    for name, _, directories in found:
        load, load_cpu, first, first_cpu, resident = (min(column) for column in zip(*measured[name]))
        disk = sum(weights(directory) for directory in directories) / 1e6
        times = f"{load:.2f} ({load_cpu:.2f}) | {first:.2f} ({first_cpu:.2f})"
        print(f"| {name} | {disk:.1f} | {times} | {resident:.0f} |")
        results.append({"name": name, "disk_mb": disk, "load": load, "load_cpu": load_cpu, "first": first,
                        "first_cpu": first_cpu, "resident_mib": resident})
    (arguments.work / "sizes.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
