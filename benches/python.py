#!/usr/bin/env python3
"""Compares the Python package with the command: the time to encode a file of texts, the time from Ctrl-C to the end of an
encoding, and the resident memory over repeated encodings.

    python benches/python.py --model MODEL --texts FILE [--ticket TICKET] [--rounds 5]

MODEL is an encoder in Hugging Face layout, FILE has a text a line. Both sides read the file, encode its first --count lines
and write the vectors, each in a process of its own, in turns; the script prints medians and their ratio, and fails if the
vectors differ in a bit. The texts of the other two measurements are the first 8 words of each line, repeated to --short
texts. Packages: tamt, numpy and safetensors, built for release (maturin build --release).
"""

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
from safetensors.numpy import load_file

ENCODE = """
import sys, numpy, tamt
model, ticket, texts, output = sys.argv[1:]
with open(texts, encoding="utf-8") as file:
    lines = file.read().splitlines()
numpy.save(output, tamt.Encoder(model, ticket=ticket or None).encode(lines))
"""

STOPPED = """
import sys, tamt
model, ticket, texts = sys.argv[1:]
with open(texts, encoding="utf-8") as file:
    lines = file.read().splitlines()
encoder = tamt.Encoder(model, ticket=ticket or None)
print("begun", flush=True)
try:
    encoder.encode(lines, show_progress=True)
except KeyboardInterrupt:
    sys.exit(130)
"""

REPEATED = """
import sys, tamt
model, ticket, texts, repetitions = sys.argv[1:]
with open(texts, encoding="utf-8") as file:
    lines = file.read().splitlines()
encoder = tamt.Encoder(model, ticket=ticket or None)
for _ in range(int(repetitions)):
    encoder.encode(lines)
    with open("/proc/self/status") as status:
        print(next(line.split()[1] for line in status if line.startswith("VmRSS")), flush=True)
"""


def seconds(words):
    began = time.monotonic()
    subprocess.run(list(map(str, words)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - began


def speed(args, texts, work):
    ticket = ["--ticket", args.ticket] if args.ticket else []
    sides = {
        "command": [args.tamt, "encode", "--model", args.model, *ticket, "--input", texts, "--output",
                    work / "command.safetensors"],
        "Python": [sys.executable, "-c", ENCODE, args.model, args.ticket, texts, work / "python.npy"],
    }
    times = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, words in sides.items():
            times[name].append(seconds(words))
    command, package = load_file(work / "command.safetensors"), numpy.load(work / "python.npy")
    (vectors,) = command.values()
    assert numpy.array_equal(vectors, package), "the vectors differ"
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(f"{len(vectors)} texts: command {medians['command']:.2f} s, Python {medians['Python']:.2f} s, ratio "
          f"{medians['Python'] / medians['command']:.3f} (medians of {args.rounds}); equal vectors", flush=True)


def interruptions(args, short):
    ends, counted = [], 0
    for round in range(args.rounds):
        process = subprocess.Popen([sys.executable, "-c", STOPPED, args.model, args.ticket, short],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.5 + 0.7 * round)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        ends.append(time.monotonic() - sent)
        counted += b"encode: " in said
        assert process.returncode == 130, (process.returncode, said[-500:])
    print(f"Ctrl-C in an encoding of {args.short} texts: the process ended in {max(ends):.2f} s at most, "
          f"{statistics.median(ends):.2f} s in the median; {counted} of {args.rounds} showed progress", flush=True)


def memory(args, short):
    words = [sys.executable, "-c", REPEATED, args.model, args.ticket, short, "10"]
    sizes = [int(line) / 1024 for line in subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout.split()]
    print("resident after each of 10 encodings, MiB: " + " ".join(f"{size:.1f}" for size in sizes))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tamt", default="target/release/tamt")
    parser.add_argument("--model", required=True)
    parser.add_argument("--ticket", default="")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--short", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    lines = [line for line in args.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
    with tempfile.TemporaryDirectory() as work:
        texts, short = Path(work) / "texts.txt", Path(work) / "short.txt"
        texts.write_text("\n".join(lines[: args.count]) + "\n")
        heads = [" ".join(line.split()[:8]) for line in lines]
        short.write_text("\n".join(heads[i % len(heads)] for i in range(args.short)) + "\n")
        speed(args, texts, Path(work))
        interruptions(args, short)
        memory(args, short)


if __name__ == "__main__":
    main()
