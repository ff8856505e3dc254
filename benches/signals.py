#!/usr/bin/env python3
"""Measures how long `tamt` takes to end after a signal that arrives at a random moment of each verb.

    python benches/signals.py --model MODEL --corpus FILE... --eval-corpus FILE --squad DIR [--count 10] [--seed 0]

MODEL is an encoder in Hugging Face layout, DIR holds SQuAD's train-v1.1.json and dev-v1.1.json. Each verb is first run
to its end, or for --longest seconds; then it is run --count times, and SIGINT, SIGTERM or SIGHUP arrives at a moment that
is uniform in its duration. The script prints, for each verb, the seconds from the signal to the answer on stderr and to the
end of the process, which in a training also finishes the step and writes a checkpoint, and the exit codes. It fails if an
exit code is neither 0 (the process ended ahead of the signal) nor 128 plus the number of the signal, or a temporary file
is left. The cache of tokens is off, so that texts are read.
"""

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


def verbs(args, out):
    """The command lines by name. Each writes to `out`, which is new."""
    model, text = ["--model", args.model], ["--corpus", *args.corpus]
    small = ["--block-size", "128", "--batch-size", "8"]
    find = ["find", *model, "--sparsity", "0.7", *small, "--output-dir", out / "run"]
    squad = ["--task", "squad", "--data", args.squad]
    ticket = ["--ticket", args.ticket]
    return {
        "find tamt-kd": [*find, "--method", "tamt-kd", *text, "--eval-corpus", args.eval_corpus, "--max-steps", "30",
                         "--eval-every", "10"],
        "find magnitude": [*find, "--method", "magnitude", "--eval-corpus", args.eval_corpus],
        "eval": ["eval", *model, *ticket, *text, "--objective", "kd"],
        "pretrain": ["pretrain", *model, "--train", "head", *text, "--max-steps", "20", *small, "--eval-corpus",
                     args.eval_corpus, "--output-dir", out / "run"],
        "tune squad": ["tune", *model, *ticket, *squad, "--max-steps", "20", "--batch-size", "8", "--output-dir",
                       out / "run"],
        "eval squad": ["eval", "--model", args.tuned, *squad],
        "encode": ["encode", *model, "--input", args.eval_corpus, "--output", out / "x.safetensors"],
        "apply": ["apply", *model, *ticket, "--output-dir", out / "applied"],
        "inspect": ["inspect", args.ticket, *model],
        "bench": ["bench", *model],
        "demo": ["demo", "--output-dir", out / "demo"],
    }


def start(args, line):
    return subprocess.Popen([args.tamt, *map(str, line)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def once(args, name, delay, number):
    """The seconds from the signal to the answer and to the end, the exit code, the last line, and left-over files."""
    with tempfile.TemporaryDirectory(dir=args.scratch) as out:
        process = start(args, verbs(args, Path(out))[name])
        lines = []
        reader = threading.Thread(target=lambda: lines.extend((time.monotonic(), line.strip()) for line in process.stderr))
        reader.start()
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            pass
        sent = time.monotonic()
        if process.poll() is None:
            process.send_signal(number)
        process.wait()
        ended = time.monotonic() - sent
        reader.join()
        answers = [at - sent for at, line in lines if "stopp" in line and at > sent]
        left = [path.name for path in Path(out).rglob(".tmp-*")]
        said = lines[-1][1] if lines else ""
        return min([ended, *answers]), ended, process.returncode, said, left


def duration(args, name):
    with tempfile.TemporaryDirectory(dir=args.scratch) as out:
        began = time.monotonic()
        process = start(args, verbs(args, Path(out))[name])
        try:
            _, error = process.communicate(timeout=args.longest)
            assert process.returncode == 0, error
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        return time.monotonic() - began


def prepare(args):
    """A ticket, and a model tuned on a few questions of SQuAD."""
    args.ticket, args.tuned, few = args.scratch / "ticket", args.scratch / "tuned", args.scratch / "few"
    few.mkdir(exist_ok=True)
    for name in ["train-v1.1.json", "dev-v1.1.json"]:
        squad = json.loads((Path(args.squad) / name).read_text())
        article = squad["data"][0]
        squad["data"] = [{**article, "paragraphs": article["paragraphs"][:2]}]
        (few / name).write_text(json.dumps(squad))
    for line, path in [
        (["find", "--model", args.model, "--method", "magnitude", "--sparsity", "0.7", "--output-dir", args.ticket],
         args.ticket),
        (["tune", "--model", args.model, "--task", "squad", "--data", few, "--max-steps", "2", "--batch-size", "2",
          "--output-dir", args.tuned], args.tuned),
    ]:
        shutil.rmtree(path, ignore_errors=True)
        subprocess.run([args.tamt, *map(str, line)], check=True, stdout=subprocess.DEVNULL)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tamt", default="target/release/tamt")
    parser.add_argument("--model", required=True)
    parser.add_argument("--corpus", nargs="+", required=True)
    parser.add_argument("--eval-corpus", required=True)
    parser.add_argument("--squad", required=True)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--longest", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", help="only verbs whose names hold this text", default="")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()) / "tamt-signals")
    args = parser.parse_args()
    args.scratch.mkdir(exist_ok=True)
    os.environ["TAMT_CACHE_SIZE"] = "0"
    prepare(args)
    draw, failed, worst = random.Random(args.seed), False, [0.0, 0.0]
    for name in verbs(args, Path()):
        if args.verbs not in name:
            continue
        total, ends, codes = duration(args, name), [], {}
        for _ in range(args.count):
            delay, number = draw.uniform(0.0, total), draw.choice(SIGNALS)
            answered, ended, code, said, left = once(args, name, delay, number)
            ends.append((ended, answered, delay, said))
            codes[code] = codes.get(code, 0) + 1
            if code not in (0, 128 + number) or left:
                failed = True
                print(f"{name}: {number.name} after {delay:.2f} s: exit code {code}, {said}, left {left}", flush=True)
        longest, answer = max(ends), max(end[1] for end in ends)
        worst = [max(worst[0], answer), max(worst[1], longest[0])]
        print(f"{name:15} of {total:6.1f} s: answered in {answer:.3f} s at most; ended in {median(ends):.3f} s, at most "
              f"{longest[0]:.3f} s, after {longest[2]:.2f} s ({longest[3][:90]}); exit codes {codes}", flush=True)
    print(f"answered in {worst[0]:.3f} s at most, ended in {worst[1]:.3f} s at most")
    return failed


def median(ends):
    return statistics.median(end[0] for end in ends)


if __name__ == "__main__":
    sys.exit(main())
