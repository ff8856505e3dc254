#!/usr/bin/env python3
"""Check in PyTorch what `tamt export` wrote for it.

    tamt export --model BASE --ticket TICKET --format torch-mask --output-dir MASKS
    tamt export --model BASE --ticket TICKET --format torch-prune --output-dir PRUNED
    tamt encode --model BASE --ticket TICKET --input TEXTS --output STATES.safetensors --pool none --precision f32
    check_torch.py MASKS PRUNED TICKET TEXTS STATES.safetensors

`MASKS/mask.pt` has the ticket's bits as boolean tensors, in the order of the modules. `PRUNED/pytorch_model.bin` is the
state dict of the model after `torch.nn.utils.prune.identity`, and computes the hidden states of `tamt encode`. Exits 1
where one differs. Packages: torch, transformers, safetensors.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn.utils import prune


def ticket_masks(ticket):
    with safe_open(ticket / "ticket.safetensors", "np") as file:
        shapes = json.loads(file.metadata()["shapes"])
        for key in file.keys():
            name = key.removesuffix(".bitmask")
            bits = np.unpackbits(file.get_tensor(key), axis=1, bitorder="little")
            yield name, torch.from_numpy(bits[:, : shapes[name][1]].astype(bool))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ["masks", "pruned", "ticket", "texts", "states"]:
        parser.add_argument(name, type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest absolute difference; default 1e-5")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()

    config = transformers.AutoConfig.from_pretrained(arguments.pruned, local_files_only=True)
    prefix = config.model_type
    model = transformers.AutoModelForMaskedLM.from_config(config)
    masks = torch.load(arguments.masks / "mask.pt", weights_only=True)
    expected = {f"{prefix}.{name}_mask": mask for name, mask in ticket_masks(arguments.ticket)}
    order = [f"{name}.weight_mask" for name, _ in model.named_modules() if f"{name}.weight_mask" in expected]
    if list(masks) != order:
        sys.exit(f"mask.pt has {list(masks)}, expected {order}")
    for name, mask in masks.items():
        if mask.dtype != torch.bool or not torch.equal(mask, expected[name]):
            sys.exit(f"{name} differs from the ticket")

    modules = dict(model.named_modules())
    for name in masks:
        prune.identity(modules[name.removesuffix(".weight_mask")], "weight")
    state = torch.load(arguments.pruned / "pytorch_model.bin", weights_only=True)
    missing, unexpected = model.load_state_dict(state, strict=False)
    # transformers stores the decoder as the word embeddings, which it is tied to.
    missing = [name for name in missing if "decoder" not in name]
    if missing or unexpected:
        sys.exit(f"missing {missing}, unexpected {unexpected}")
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.pruned, local_files_only=True)
    states = load_file(arguments.states)
    worst = 0.0
    for i, text in enumerate(arguments.texts.read_text(encoding="utf-8").removesuffix("\n").split("\n")):
        positions = states[f"text.{i}"].shape[0]
        batch = tokenizer(text, truncation=True, max_length=positions, return_tensors="pt")
        with torch.no_grad():
            found = model.eval().base_model(**batch).last_hidden_state[0]
        worst = max(worst, (found - states[f"text.{i}"]).abs().max().item())
    print(f"{len(masks)} masks, largest difference of hidden states {worst:.2e}")
    sys.exit(0 if worst <= arguments.tolerance else 1)


if __name__ == "__main__":
    main()
