#!/usr/bin/env python3
"""Spearman's correlation of cosine similarities with the scores of STS-B's development set: a base model with a ticket, and
the same model applied and packed.

    python benches/sts.py --model MODEL --data STS-B --work DIR
    python benches/sts.py --model MODEL --data STS-B --work DIR --sentence-transformers

`tamt encode` gives the vectors. STS-B is GLUE's folder with dev.tsv. With --sentence-transformers the dense and the applied
model are encoded by that package too. Packages: numpy, scipy and safetensors.
"""

import argparse
import csv
import subprocess
from pathlib import Path

import numpy
from safetensors.numpy import load_file
from scipy.stats import spearmanr


def pairs(data):
    """The first sentences, the second sentences and the scores."""
    with open(data / "dev.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence1"] for row in rows], [row["sentence2"] for row in rows], [float(row["score"]) for row in rows]


def correlation(first, second, scores):
    cosine = (first * second).sum(1) / (numpy.linalg.norm(first, axis=1) * numpy.linalg.norm(second, axis=1))
    return spearmanr(cosine, scores).statistic


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tamt", default="target/release/tamt")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of STS-B")
    parser.add_argument("--ticket", help="ticket [default: magnitude at 70 %%]")
    parser.add_argument("--work", type=Path, required=True, help="new directory of the models")
    parser.add_argument("--precision", default="f32", help="precision of products, as for tamt encode")
    parser.add_argument("--sentence-transformers", action="store_true")
    arguments = parser.parse_args()
    work, tamt = arguments.work, arguments.tamt
    work.mkdir(parents=True)

    def call(*words):
        subprocess.run([tamt, *map(str, words), "--quiet"], check=True, stdout=subprocess.DEVNULL)

    ticket = arguments.ticket
    if ticket is None:
        ticket = work / "ticket"
        find = ["find", "--model", arguments.model, "--method", "magnitude", "--sparsity", "0.7"]
        call(*find, "--output-dir", ticket)
    of = ["--model", arguments.model, "--ticket", ticket]
    call("apply", *of, "--output-dir", work / "applied")
    call("pack", *of, "--precision", "f32", "--output-dir", work / "packed-f32")
    call("pack", *of, "--precision", "bf16", "--output-dir", work / "packed-bf16")
    first, second, scores = pairs(arguments.data)
    for name, sentences in [("first", first), ("second", second)]:
        (work / f"{name}.txt").write_text("".join(f"{sentence}\n" for sentence in sentences), encoding="utf-8")

    models = [("dense", ["--model", arguments.model]), ("base and ticket", of)]
    models += [(name, ["--model", work / name]) for name in ["applied", "packed-f32", "packed-bf16"]]
    for name, flags in models:
        vectors = []
        for side in ["first", "second"]:
            output = work / f"{side}.safetensors"
            encode = ["encode", *flags, "--pool", "mean", "--precision", arguments.precision]
            call(*encode, "--input", work / f"{side}.txt", "--output", output)
            vectors.append(load_file(output)["embeddings"].astype(numpy.float64))
        print(f"{name}: {correlation(*vectors, scores):.6f}", flush=True)
    if arguments.sentence_transformers:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer

        for name, path in [("dense", arguments.model), ("applied", str(work / "applied"))]:
            encoder = Transformer(path, max_seq_length=512)
            model = SentenceTransformer(modules=[encoder, Pooling(encoder.get_word_embedding_dimension(), "mean")])
            model = model.float()
            vectors = [model.encode(side).astype(numpy.float64) for side in (first, second)]
            print(f"{name} (sentence-transformers): {correlation(*vectors, scores):.6f}", flush=True)


if __name__ == "__main__":
    main()
