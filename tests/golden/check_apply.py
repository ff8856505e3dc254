#!/usr/bin/env python3
"""Compare the hidden states of `tamt encode --pool none` with transformers' on the checkpoint that `tamt apply` wrote.

    tamt apply  --model BASE --ticket TICKET --output-dir MODEL
    tamt encode --model BASE --ticket TICKET --input TEXTS --output STATES.safetensors --pool none --precision f32
    check_apply.py MODEL STATES.safetensors TEXTS

Prints the largest absolute difference and the text it is in; exits 1 where it is above the tolerance, where a text is
missing, or where the two disagree about the number of tokens.
"""

import argparse
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="directory written by `tamt apply`")
    parser.add_argument("states", type=Path, help="safetensors file of `text.<i>` [tokens, hidden]")
    parser.add_argument("texts", type=Path, help="the encoded file, one text a line")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest absolute difference; default 1e-5")
    arguments = parser.parse_args()

    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(
        arguments.model, add_pooling_layer=False, dtype=torch.float32, local_files_only=True
    ).eval()
    # RoBERTa's first position is the one after the padding token's.
    positions = model.config.max_position_embeddings
    if model.config.model_type == "roberta":
        positions -= model.config.pad_token_id + 1

    states = load_file(arguments.states)
    texts = arguments.texts.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    wanted = {f"text.{index}" for index in range(len(texts))}
    if states.keys() != wanted:
        sys.exit(f"{arguments.states}: missing {sorted(wanted - states.keys())}, unknown {sorted(states.keys() - wanted)}")

    differences, tokens = [], 0
    for index, text in enumerate(texts):
        batch = tokenizer(text.removesuffix("\r"), truncation=True, max_length=positions, return_tensors="pt")
        with torch.no_grad():
            want = model(**batch).last_hidden_state[0]
        have = states[f"text.{index}"].float()
        if have.shape != want.shape:
            sys.exit(f"text {index}: {list(have.shape)} here, {list(want.shape)} in transformers: {text!r}")
        tokens += len(want)
        differences.append((have - want).abs().max())
    # The largest of numbers with a NaN among them is NaN, which no tolerance admits.
    worst, where = torch.stack(differences).max(dim=0)
    print(f"{len(texts)} texts, {tokens} tokens, largest difference {worst:.2e} (text {where})")
    sys.exit(0 if worst <= arguments.tolerance else 1)


if __name__ == "__main__":
    main()
