#!/usr/bin/env python3
"""Compare the losses that `tamt` measures of a model, dense or under a ticket, with PyTorch's on the same text.

    tamt eval --model MODEL [--ticket TICKET] --corpus TEXT --precision f32 --json > LOSSES.json
    check_losses.py MODEL LOSSES.json TEXT [--ticket TICKET]

LOSSES.json may also be what `tamt find` or `tamt pretrain` wrote as `eval_results.json`, with the text of
`--eval-corpus`. The script tokenizes and cuts the text with transformers, draws the corrupted positions and the random
tokens that block size, seed and probability in LOSSES.json stand for, and computes with transformers' model:

    mlm_loss    cross-entropy, mean over the predicted positions; the decoder keeps its dense weights
    kd_cosine   1 - cos of the hidden states to those of the dense model on clean text, mean over tokens and layers
    kd_mse      their squared difference, mean over tokens, features and layers

Prints both sides and their difference. Exits 1 where a difference of losses is above the tolerance, or where numbers
of tokens differ. Packages: torch, transformers, safetensors.
"""

import argparse
import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

from check_torch import ticket_masks

# The purpose of the random numbers, `EVAL_CORRUPTION` in crates/tamt-kernels/src/base/rng.rs.
EVAL_CORRUPTION = 3
# Of the selected tokens 80 % are masked and 10 % random, in single precision.
MASK, RANDOM = np.float64(np.float32(0.8)), np.float64(np.float32(0.1))
LOW = np.uint64(0xFFFF_FFFF)
HALF = np.uint64(32)


def philox(counter, key):
    """Philox4x32-10 (Salmon et al. 2011) of arrays of counters, as u32 values in u64 arrays."""
    counter = [np.asarray(word, dtype=np.uint64) for word in counter]
    key = list(key)
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * counter[0], np.uint64(0xCD9E8D57) * counter[2]
        first, second = (b >> HALF) ^ counter[1] ^ np.uint64(key[0]), (a >> HALF) ^ counter[3] ^ np.uint64(key[1])
        counter = [first, b & LOW, second, a & LOW]
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return counter


def check_philox():
    """A known answer of the Random123 distribution (`kat_vectors`, philox4x32 with 10 rounds)."""
    words = philox([0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344], [0xA4093822, 0x299F31D0])
    assert [int(word) for word in words] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def corrupt(ids, structural, mask, vocabulary, probability, seed):
    """The corrupted ids of a text and its labels, -100 where nothing is predicted."""
    key = philox([0, 0, EVAL_CORRUPTION, 0], [seed & 0xFFFFFFFF, seed >> 32])
    position = np.arange(len(ids), dtype=np.uint64)
    counter = [position & LOW, position >> HALF, np.broadcast_to(key[2], len(ids)), np.broadcast_to(key[3], len(ids))]
    chosen, fate, high, low = philox(counter, [int(key[0]), int(key[1])])
    selected = (chosen / 2.0**32 < np.float64(np.float32(probability))) & ~np.isin(ids, structural)
    fate = fate / 2.0**32
    drawn = [(int(h) << 32 | int(l)) * vocabulary >> 64 for h, l in zip(high, low)]
    corrupted = np.where(fate < MASK, mask, np.where(fate < MASK + RANDOM, np.array(drawn, dtype=np.int64), ids))
    return np.where(selected, corrupted, ids), np.where(selected, ids, -100)


def blocks_of(text, tokenizer, size):
    """The tokens of all lines, joined and cut, between the tokenizer's first and last special token."""
    tokens = []
    for line in text.split("\n"):
        tokens += tokenizer(line.removesuffix("\r"), add_special_tokens=False, verbose=False)["input_ids"]
    windows = [tokens[start : start + size - 2] for start in range(0, len(tokens), size - 2)]
    return [[tokenizer.cls_token_id, *window, tokenizer.sep_token_id] for window in windows]


def under_ticket(dense, ticket):
    """A copy of the model with a ticket's zeros. A word that is predicted has its dense weights."""
    model = copy.deepcopy(dense)
    decoder = model.get_output_embeddings()
    decoder.weight = torch.nn.Parameter(decoder.weight.detach().clone())
    weights = dict(model.base_model.named_parameters())
    for name, mask in ticket_masks(ticket):
        if name in weights:
            weights[name].data *= mask
        elif not name.startswith("pooler."):
            sys.exit(f"{ticket} has a mask of {name}, which the model has not")
    return model


def batches(arrays, lengths, size=16):
    """Pieces of flat arrays as tensors [sequences, tokens]; sequences of a piece have one length."""
    bounds = np.cumsum([0, *lengths])
    first = 0
    while first < len(lengths):
        last = first + 1
        while last < min(first + size, len(lengths)) and lengths[last] == lengths[first]:
            last += 1
        piece = slice(bounds[first], bounds[last])
        yield [torch.from_numpy(array[piece]).reshape(last - first, lengths[first]) for array in arrays]
        first = last


def distances(model, dense, ids, lengths):
    cosine = squares = states = 0
    for (batch,) in batches([ids], lengths):
        pair = [one.base_model(batch, output_hidden_states=True).hidden_states[1:] for one in (model, dense)]
        for have, want in zip(*pair):
            cosine += (1 - torch.cosine_similarity(have.double(), want.double(), dim=-1)).sum().item()
            squares += (have.double() - want.double()).square().mean(dim=-1).sum().item()
            states += have[..., 0].numel()
    return {"kd_cosine": cosine / states, "kd_mse": squares / states}


def mlm(model, corrupted, labels, lengths):
    loss = correct = 0
    for batch, wanted in batches([corrupted, labels], lengths):
        picked = wanted != -100
        logits = model(batch).logits[picked].double()
        loss += torch.nn.functional.cross_entropy(logits, wanted[picked], reduction="sum").item()
        correct += (logits.argmax(dim=-1) == wanted[picked]).sum().item()
    count = max((labels != -100).sum(), 1)
    return {"mlm_loss": loss / count, "mlm_accuracy": correct / count}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="directory in Hugging Face layout")
    parser.add_argument("losses", type=Path, help="result of `tamt eval --json`, or eval_results.json of a run")
    parser.add_argument("text", type=Path, help="the text, a paragraph a line")
    parser.add_argument("--ticket", type=Path, help="directory with ticket.safetensors; default: the dense model")
    parser.add_argument("--dtype", choices=["f32", "f64"], default="f32", help="PyTorch's precision; default f32")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference of a loss; default 1e-4")
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    torch.set_grad_enabled(False)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    check_philox()

    have = json.loads(arguments.losses.read_text(encoding="utf-8"))
    how = have.get("evaluation") or have
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.model, local_files_only=True)
    dtype = {"f32": torch.float32, "f64": torch.float64}[arguments.dtype]
    dense = transformers.AutoModelForMaskedLM.from_pretrained(arguments.model, dtype=dtype, local_files_only=True)
    dense.eval()
    model = under_ticket(dense, arguments.ticket) if arguments.ticket else dense

    blocks = blocks_of(arguments.text.read_text(encoding="utf-8"), tokenizer, how["block_size"])
    ids, lengths = np.array(sum(blocks, []), dtype=np.int64), [len(block) for block in blocks]
    structural = [tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id]
    vocabulary = max(tokenizer.get_vocab().values()) + 1
    corrupted, labels = corrupt(
        ids, structural, tokenizer.mask_token_id, vocabulary, how["mlm_probability"], how["seed"]
    )
    want = {"tokens": len(ids), "masked_tokens": int((labels != -100).sum())}
    if have.get("mlm_loss") is not None:
        want |= mlm(model, corrupted, labels, lengths)
    if have.get("kd_cosine") is not None:
        want |= distances(model, dense, ids, lengths)

    wrong = []
    print(f"{'':14}{'tamt':>14}{'PyTorch':>14}{'difference':>14}")
    for name, value in want.items():
        other = how[name] if name in how else have[name]
        # A rounding error may decide between two tokens, and change the accuracy by a whole position.
        limit = {"tokens": 0, "masked_tokens": 0, "mlm_accuracy": 1}.get(name, arguments.tolerance)
        print(f"{name:14}{other:14.9g}{value:14.9g}{abs(value - other):14.1e}")
        # A NaN is within no limit.
        if not abs(value - other) <= limit:
            wrong.append(name)
    sys.exit(f"they differ in {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
