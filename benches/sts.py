#!/usr/bin/env python3
"""Spearman's correlation of cosine similarities with the scores of STS-B's development set: a base model with a ticket, and
the same model applied and packed.

    python benches/sts.py --model MODEL --data STS-B --work DIR
    python benches/sts.py --model MODEL --data STS-B --work DIR --serve --package --sentence-transformers

`tamt encode` gives the vectors. STS-B is GLUE's folder with dev.tsv. With --serve and with --package (the Python package
`tamt`) the dense model and the ticket are encoded by these too, and the script fails if a vector differs from that of
`encode` in a bit. With --sentence-transformers the dense and the applied model are encoded by that package. Packages: numpy,
scipy and safetensors.
"""

import argparse
import base64
import csv
import json
import subprocess
import urllib.request
from pathlib import Path

import numpy
from safetensors.numpy import load_file
from scipy.stats import spearmanr

from serve import Server


def pairs(data):
    """The first sentences, the second sentences and the scores."""
    with open(data / "dev.tsv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence1"] for row in rows], [row["sentence2"] for row in rows], [float(row["score"]) for row in rows]


def correlation(first, second, scores):
    first, second = first.astype(numpy.float64), second.astype(numpy.float64)
    cosine = (first * second).sum(1) / (numpy.linalg.norm(first, axis=1) * numpy.linalg.norm(second, axis=1))
    return spearmanr(cosine, scores).statistic


def served(url, sentences):
    """The vectors of the model `it` of a server."""
    vectors = []
    for first in range(0, len(sentences), 100):
        body = {"model": "it", "input": sentences[first:first + 100], "encoding_format": "base64"}
        with urllib.request.urlopen(urllib.request.Request(f"{url}/v1/embeddings", json.dumps(body).encode())) as answer:
            found = [base64.b64decode(entry["embedding"]) for entry in json.load(answer)["data"]]
        vectors += [numpy.frombuffer(vector, numpy.float32) for vector in found]
    return numpy.array(vectors)


def other_surfaces(arguments, ticket, sides):
    """The vectors of the sides by `tamt serve` and by the Python package, where they are asked for."""
    found = {}
    if arguments.serve:
        line = [arguments.tamt, "serve", "--model", arguments.model, "--pool", "mean", "--precision", arguments.precision]
        line += ["--ticket", f"it={ticket}"] if ticket else ["--name", "it"]
        server = Server([*line, "--address", "127.0.0.1:0"])
        try:
            found["serve"] = [served(server.url, side) for side in sides]
        finally:
            server.end()
    if arguments.package:
        from tamt import Encoder

        encoder = Encoder(arguments.model, ticket=ticket, precision=arguments.precision, pool="mean")
        found["package"] = [encoder.encode(side) for side in sides]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tamt", default="target/release/tamt")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder of STS-B")
    parser.add_argument("--ticket", help="ticket [default: magnitude at 70 %%]")
    parser.add_argument("--work", type=Path, required=True, help="new directory of the models")
    parser.add_argument("--precision", default="f32", help="precision of products, as for tamt encode")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--package", action="store_true")
    parser.add_argument("--sentence-transformers", action="store_true")
    arguments = parser.parse_args()
    work, tamt = arguments.work, arguments.tamt
    if work.exists():
        parser.error(f"--work {work} exists; a new directory is needed")
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
    own = {"dense": None, "base and ticket": str(ticket)}
    for name, flags in models:
        vectors = []
        for side in ["first", "second"]:
            output = work / f"{side}.safetensors"
            encode = ["encode", *flags, "--pool", "mean", "--precision", arguments.precision]
            call(*encode, "--input", work / f"{side}.txt", "--output", output)
            vectors.append(load_file(output)["embeddings"])
        print(f"{name}: {correlation(*vectors, scores):.6f}", flush=True)
        others = other_surfaces(arguments, own[name], (first, second)) if name in own else {}
        for surface, found in others.items():
            assert all(map(numpy.array_equal, found, vectors)), f"{surface} has other vectors than encode"
            print(f"{name} ({surface}): {correlation(*found, scores):.6f}, the bits of encode", flush=True)
    if arguments.sentence_transformers:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.models import Pooling, Transformer

        for name, path in [("dense", arguments.model), ("applied", str(work / "applied"))]:
            encoder = Transformer(path, max_seq_length=512)
            model = SentenceTransformer(modules=[encoder, Pooling(encoder.get_word_embedding_dimension(), "mean")])
            model = model.float()
            vectors = [model.encode(side) for side in (first, second)]
            print(f"{name} (sentence-transformers): {correlation(*vectors, scores):.6f}", flush=True)


if __name__ == "__main__":
    main()
