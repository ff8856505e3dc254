#!/usr/bin/env python3
"""Compare a model that `tamt export --format onnx` wrote with other programs, in ONNX Runtime and OpenVINO.

    tamt export --model BASE --ticket TICKET --format onnx --pool mean --output-dir MODEL
    tamt encode --model BASE --ticket TICKET --input TEXTS --output STATES.safetensors --pool none --precision f32
    tamt encode --model BASE --ticket TICKET --input TEXTS --output VECTORS.safetensors --pool mean --precision f32
    check_onnx.py MODEL TEXTS --states STATES.safetensors --vectors VECTORS.safetensors --ticket TICKET

    tamt export --model TUNED --format onnx --output-dir MODEL
    check_onnx.py MODEL TEXTS --task TUNED

The texts are one padded batch, and the first of them alone is another. Prints the largest absolute difference for each
engine and output; exits 1 where one is above the tolerance, where an output is missing, or where a weight that the ticket
drops is not zero in the file. Packages: onnx, onnxruntime and openvino (each engine where installed), transformers, torch.
"""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import torch
import transformers
from onnx import numpy_helper
from safetensors import safe_open
from safetensors.numpy import load_file


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, path):
        import onnxruntime

        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.outputs = [o.name for o in self.session.get_outputs()]

    def run(self, feed):
        return dict(zip(self.outputs, self.session.run(None, feed)))


class OpenVino:
    name = "openvino"

    def __init__(self, path):
        import openvino

        # Processors with bf16 round to it by default.
        config = {"INFERENCE_PRECISION_HINT": "f32"}
        self.model = openvino.Core().compile_model(str(path), "CPU", config)
        self.inputs = [i.get_any_name() for i in self.model.inputs]
        self.outputs = [o.get_any_name() for o in self.model.outputs]

    def run(self, feed):
        result = self.model(feed)
        return {o.get_any_name(): result[o] for o in self.model.outputs}


def dropped_weights(model, ticket):
    """The number of weights that the ticket drops, all of which are zero in the file."""
    stored = {t.name: t for t in onnx.load(model / "model.onnx").graph.initializer}
    if ticket.is_dir():
        ticket = ticket / "ticket.safetensors"
    count = 0
    with safe_open(ticket, "np") as file:
        shapes = json.loads(file.metadata()["shapes"])
        for key in file.keys():
            name = key.removesuffix(".bitmask")
            if name not in stored and f"{name}.int8" not in stored:
                continue
            rows, cols = shapes[name]
            kept = np.unpackbits(file.get_tensor(key), axis=1, bitorder="little")[:, :cols].astype(bool)
            weights = numpy_helper.to_array(stored.get(name, stored.get(f"{name}.int8")))
            weights = weights if name == "embeddings.word_embeddings.weight" else weights.T
            if weights.shape != (rows, cols) or (weights[~kept] != 0).any():
                sys.exit(f"{name}: the file does not have the ticket's zeros")
            count += (~kept).sum()
    return count


def expected_of_task(directory, batch):
    config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
    spans = config.architectures[0].endswith("ForQuestionAnswering")
    auto = transformers.AutoModelForQuestionAnswering if spans else transformers.AutoModelForSequenceClassification
    model = auto.from_pretrained(directory, dtype=torch.float32, local_files_only=True).eval()
    with torch.no_grad():
        found = model(**{name: torch.from_numpy(values) for name, values in batch.items()})
    names = ["start_logits", "end_logits"] if spans else ["logits"]
    return {name: getattr(found, name).numpy() for name in names}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="directory written by `tamt export --format onnx`")
    parser.add_argument("texts", type=Path, help="one text a line")
    parser.add_argument("--states", type=Path, help="`text.<i>` [tokens, hidden] of `tamt encode --pool none`")
    parser.add_argument("--vectors", type=Path, help="`embeddings` [texts, hidden] of `tamt encode --pool mean` or cls")
    parser.add_argument("--task", type=Path, help="fine-tuned model in Hugging Face layout, for transformers")
    parser.add_argument("--ticket", type=Path, help="ticket whose zeros the file has")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest absolute difference; default 1e-4")
    arguments = parser.parse_args()

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    onnx.checker.check_model(arguments.model / "model.onnx", full_check=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model, local_files_only=True)
    config = transformers.AutoConfig.from_pretrained(arguments.model, local_files_only=True)
    positions = config.max_position_embeddings
    if config.model_type == "roberta":
        positions -= config.pad_token_id + 1
    texts = arguments.texts.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    encode = lambda chosen: dict(
        tokenizer(chosen, padding=True, truncation=True, max_length=positions, return_tensors="np")
    )
    batches = [(0, encode(texts)), (0, encode(texts[:1]))]
    states = load_file(arguments.states) if arguments.states else {}
    vectors = load_file(arguments.vectors)["embeddings"] if arguments.vectors else None

    failed = False
    engines = [e for e in (OnnxRuntime, OpenVino) if find_spec(e.name)]
    if not engines:
        sys.exit("neither onnxruntime nor openvino is installed")
    for engine in engines:
        session = engine(arguments.model / "model.onnx")
        worst = {}
        for _, batch in batches:
            ids, mask = batch["input_ids"].astype(np.int64), batch["attention_mask"].astype(np.int64)
            types = batch.get("token_type_ids", np.zeros_like(ids)).astype(np.int64)
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
            found = session.run({name: feed[name] for name in session.inputs})
            pairs = []
            if arguments.states:
                for i, row in enumerate(mask):
                    length = row.sum()
                    pairs.append(("last_hidden_state", found["last_hidden_state"][i, :length], states[f"text.{i}"]))
            if vectors is not None:
                pairs.append(("sentence_embedding", found["sentence_embedding"], vectors[: len(ids)]))
            if arguments.task:
                expected = expected_of_task(arguments.task, batch)
                # Scores of padding have no meaning.
                real = mask.astype(bool) if "start_logits" in expected else slice(None)
                pairs += [(name, found[name][real], want[real]) for name, want in expected.items()]
            for name, have, want in pairs:
                if have.shape != want.shape:
                    sys.exit(f"{engine.name}: {name} is {have.shape}, expected {want.shape}")
                # A NaN is above every tolerance.
                difference = np.nan_to_num(np.abs(have - want), nan=np.inf).max(initial=0)
                worst[name] = max(worst.get(name, 0), difference)
        for name, difference in worst.items():
            print(f"{engine.name}: {name} {difference:.2e}")
            failed |= not difference <= arguments.tolerance
        failed |= not worst
    if arguments.ticket:
        count = dropped_weights(arguments.model, arguments.ticket)
        print(f"{count} dropped weights are zero")
        failed |= count == 0
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
