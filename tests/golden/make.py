#!/usr/bin/env python3
"""Make the golden files of this folder, or recompute those of a folder and compare. `README.md` describes the files."""

import argparse
import collections
import json
import random
import re
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from method import DTYPE, FILES, optimiser_trajectories, schedules

KINDS = ("bert", "roberta")
SPECIALS = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
VOCABULARY = {"bert": 96, "roberta": 272}
BATCH, LENGTH, STEPS = 4, 32, 12
# Mask training is redrawn until no score comes closer to its threshold, so that rounding does not flip a mask bit.
MARGIN = 5e-7


# ---- inputs: corpus, tokenizers, checkpoints, batches --------------------------------------------------------------


def corpus(generator):
    """Sentences over invented words, one a line."""
    onsets, vowels, codas = "b d f g k l m n p r s t v st tr".split(), "a e i o u".split(), ["", "n", "r", "l", "s"]
    syllables = [o + v + c for o in onsets for v in vowels for c in codas]
    words = ["".join(generator.choices(syllables, k=generator.choice((1, 2, 2, 3)))) for _ in range(80)]
    lines = []
    for _ in range(60):
        sentence = generator.choices(words, weights=[1 / rank for rank in range(1, 81)], k=generator.randint(6, 14))
        lines.append(" ".join(sentence).capitalize() + generator.choice((".", ".", "?", "!")))
    return lines


def word_pieces(lines):
    """The alphabet at the start of a word and inside one, then the pieces that save most letters.

    `tokenizers`' own trainer orders equal pieces by a randomly seeded hash, so two runs of it differ.
    """
    words = re.findall(r"\w+", " ".join(lines).lower())
    letters = sorted(set("".join(words)))
    saved = collections.Counter()
    for word in words:
        for cut in range(1, len(word) + 1):
            saved[word[:cut]] += cut - 1
            saved["##" + word[cut:]] += max(len(word) - cut - 1, 0)
    pieces = SPECIALS["bert"] + list("!.?") + letters + ["##" + letter for letter in letters]
    longer = sorted(saved.keys() - set(pieces) - {"##"}, key=lambda piece: (-saved[piece], piece))
    return (pieces + longer)[: VOCABULARY["bert"]]


def write_tokenizer(kind, directory, lines):
    special = SPECIALS[kind]
    if kind == "bert":
        vocabulary = {piece: index for index, piece in enumerate(word_pieces(lines))}
        tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
        tokenizer.add_special_tokens(special)
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        config = {"do_lower_case": True, "model_max_length": LENGTH + 8, "tokenizer_class": "BertTokenizer"}
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=VOCABULARY[kind], special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(lines, trainer)
        config = {"model_max_length": LENGTH + 8, "tokenizer_class": "RobertaTokenizer"}
    assert tokenizer.get_vocab_size() == VOCABULARY[kind]
    if kind == "bert":
        tokenizer.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer.save(str(directory / "tokenizer.json"))
    tokenizer.model.save(str(directory))
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_tokens(kind, directory, lines):
    """What transformers makes of some texts, so that a tokenizer built from these files can be compared."""
    texts = lines[:4] + ["", "  Two  spaces, a tab\tand naïve CAFÉ's 12½ €.", "日本 😀", lines[4] + " " + lines[5]]
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
    cases = [{"text": text, "input_ids": tokenizer(text)["input_ids"]} for text in texts]
    pair = tokenizer(lines[0], lines[1])
    cases.append({"text": lines[0], "pair": lines[1], "input_ids": pair["input_ids"]})
    rows = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case in cases)
    (directory.parent / f"{kind}.tokens.json").write_text(f"[\n{rows}\n]\n", encoding="utf-8")


def write_checkpoints(kind, directory):
    """Random weights, wide enough that attention is not uniform, with biases and LayerNorms that are not 0 and 1."""
    config = dict(
        vocab_size=VOCABULARY[kind], hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=LENGTH + (8 if kind == "bert" else 10), initializer_range=0.2,
    )  # fmt: skip
    if kind == "bert":
        config = transformers.BertConfig(**config)
    else:
        config = transformers.RobertaConfig(**config, type_vocab_size=1, layer_norm_eps=1e-5)
    torch.manual_seed(7)
    family = {"bert": "Bert", "roberta": "Roberta"}[kind]
    mlm = getattr(transformers, f"{family}ForMaskedLM")(config)
    config.num_labels = 3
    classifier = getattr(transformers, f"{family}ForSequenceClassification")(config)
    with torch.no_grad():
        for parameter in [*mlm.parameters(), *classifier.parameters()]:
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
        encoder = classifier.base_model.state_dict()
        encoder |= mlm.base_model.state_dict()
        classifier.base_model.load_state_dict(encoder)
    mlm.save_pretrained(directory)
    classifier.save_pretrained(directory / "classifier")


def inputs_of(what, kind, generator):
    """The inputs of one golden file: ids are uniform over the vocabulary without its special tokens."""
    first, last = (SPECIALS[kind].index(token) for token in (("[CLS]", "[SEP]") if kind == "bert" else ("<s>", "</s>")))
    mask_token, vocabulary = 4, VOCABULARY[kind]

    def ids(batch, length):
        result = torch.randint(5, vocabulary, (batch, length), generator=generator, dtype=torch.int32)
        result[:, 0], result[:, -1] = first, last
        return result

    def corrupted():
        clean = ids(BATCH, LENGTH)
        draw = torch.rand(clean.shape, generator=generator)
        chosen = draw < 0.15
        chosen[:, 0] = chosen[:, -1] = False
        labels = torch.where(chosen, clean, -100)
        masked = chosen & (draw < 0.12)
        replaced = chosen & (draw >= 0.12) & (draw < 0.135)
        # No special tokens here: RoBERTa counts positions past a padding token, which is no matter of the objective.
        noise = torch.randint(5, vocabulary, clean.shape, generator=generator, dtype=torch.int32)
        input_ids = torch.where(masked, mask_token, torch.where(replaced, noise, clean))
        return {"input_ids": input_ids.int(), "labels": labels.int()}

    def pairs():
        input_ids, types = ids(BATCH, LENGTH - 2), torch.zeros(BATCH, LENGTH - 2, dtype=torch.int32)
        middle = 14
        input_ids[:, middle] = last
        if kind == "bert":
            types[:, middle + 1 :] = 1
        else:
            input_ids[:, middle + 1] = last
        labels = torch.randint(0, 3, (BATCH,), generator=generator, dtype=torch.int32)
        return {"input_ids": input_ids, "token_type_ids": types, "labels": labels}

    def every_step(batch):
        return {f"step.{step}.{name}": value for step in range(STEPS) for name, value in batch().items()}

    return {
        "forward": lambda: {"input_ids": ids(2, LENGTH)},
        "mlm_grad": corrupted,
        "magnitude": dict,
        "train_mlm": lambda: every_step(corrupted),
        "train_kd": lambda: every_step(lambda: {"input_ids": ids(BATCH, LENGTH)}),
        "train_mlm_kd": lambda: every_step(corrupted),
        "tune": lambda: every_step(pairs),
        "kd_variants": lambda: {"input_ids": ids(BATCH, LENGTH)},
    }[what]()


def is_input(name):
    return name in ("input_ids", "labels") or name.startswith("step.")


# ---- the two commands ----------------------------------------------------------------------------------------------


def make(directory):
    lines = corpus(random.Random(5))
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "corpus.txt").write_text("\n".join(lines) + "\n")
    rows = ",\n".join(json.dumps(schedule) for schedule in schedules())
    (directory / "schedules.json").write_text(f"[\n{rows}\n]\n")
    save_file(optimiser_trajectories(), directory / "optim.safetensors")
    for seed, kind in enumerate(KINDS):
        (directory / kind).mkdir(exist_ok=True)
        write_tokenizer(kind, directory / kind, lines)
        write_checkpoints(kind, directory / kind)
        write_tokens(kind, directory / kind, lines)
        generator = torch.Generator().manual_seed(seed)
        for what, compute in FILES.items():
            for _ in range(100):
                inputs = inputs_of(what, kind, generator)
                outputs = compute(directory / kind, inputs, "f32")
                if outputs.get("margin", MARGIN) >= MARGIN:
                    break
            else:
                sys.exit(f"{kind}.{what}: no inputs found whose scores stay {MARGIN} away from their thresholds")
            tensors = {name: value.detach().contiguous() for name, value in (inputs | outputs).items()}
            save_file(tensors, directory / f"{kind}.{what}.safetensors")
    print(f"{sum(f.stat().st_size for f in directory.rglob('*') if f.is_file()):,} bytes in {directory}")


def check(directory, dtype, tolerance):
    """Recompute every file of `directory` from its own inputs; True when all agree to `tolerance`."""
    good = True
    for kind in KINDS:
        for what, compute in FILES.items():
            path = directory / f"{kind}.{what}.safetensors"
            if not path.exists():
                print(f"{path.name}: absent, skipped")
                continue
            stored = load_file(path)
            inputs = {name: value for name, value in stored.items() if is_input(name)}
            outputs = compute(directory / kind, inputs, dtype)
            missing = sorted(stored.keys() - inputs.keys() - outputs.keys())
            worst, where, bits, total, relative = 0.0, "-", 0, 0, 0.0
            for name in outputs.keys() & stored.keys() - {"margin"}:
                difference = (outputs[name].detach().double() - stored[name].double()).abs()
                if stored[name].dtype == torch.uint8:
                    bits, total = bits + int(difference.sum()), total + difference.numel()
                elif difference.max() >= worst:
                    worst, where = difference.max().item(), name
                    relative = worst / max(stored[name].double().abs().max().item(), 1e-30)
            good &= worst <= tolerance and not missing and bits <= 1e-3 * total
            print(f"{path.name}: largest difference {worst:.1e} ({relative:.1e} of the largest value) in {where}; "
                  f"{bits} of {total} mask bits differ" + (f"; not recomputed: {missing}" if missing else ""))  # fmt: skip
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, default=Path(__file__).parent, help="where to write (default: here)")
    parser.add_argument("--check", type=Path, metavar="DIR", help="recompute the files of DIR and compare; write nothing")
    parser.add_argument("--dtype", choices=DTYPE, default="f32", help="arithmetic of --check; f64 shows rounding in f32")
    parser.add_argument("--tolerance", type=float, default=2e-5, help="largest absolute difference --check accepts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if arguments.check:
        sys.exit(0 if check(arguments.check, arguments.dtype, arguments.tolerance) else 1)
    make(arguments.output_dir)


if __name__ == "__main__":
    main()
