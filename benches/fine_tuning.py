#!/usr/bin/env python3
"""Fine-tune the same encoder with PyTorch and with `tamt`, and compare scores or speed.

    scores   both sides fine-tune on each task with every seed; mean and standard deviation of the best development score
    speed    the sides take turns, an epoch a turn, on one task; the ratio of the medians

PyTorch's side is `transformers` as its examples use it: AutoModelFor..., fast tokenizer, AdamW (eps 1e-8, no decay), one
norm limit of 1, linear decay, dropout on. Sequences are padded to --max-length as the reference pads them, or with
--pad longest to the longest of their batch. `tamt` does not pad.

    pip install torch transformers scikit-learn scipy
    cargo build --release
    python3 benches/fine_tuning.py scores --model MODEL --data glue --tasks cola,rte --seeds 1,2,3
    python3 benches/fine_tuning.py scores --model MODEL --data squad --tasks squad --max-steps 400 --same-start
    python3 benches/fine_tuning.py speed  --model MODEL --data glue --tasks rte
"""

import argparse
import collections
import json
import random
import re
import statistics
import string
import subprocess
import tempfile
import time
from pathlib import Path

TAMT = Path(__file__).parent.parent / "target/release/tamt"
#      folder, first text, second text, label, header
TASKS = {
    "cola": ("CoLA", 3, None, 1, False),
    "sst2": ("SST-2", 0, None, 1, True),
    "mrpc": ("MRPC", 3, 4, 0, True),
    "rte": ("RTE", 1, 2, -1, True),
}


def primary(task):
    return {"cola": "matthews_correlation", "mrpc": "acc_and_f1", "squad": "f1"}.get(task, "accuracy")


# ---- reading -------------------------------------------------------------------------------------------------------


def glue_lines(data, task, split):
    folder, *_, header = TASKS[task]
    text = (Path(data) / folder / f"{split}.tsv").read_text(encoding="utf-8-sig").replace("\r\n", "\n")
    lines = [line for line in text.split("\n") if line]
    return lines[:header], lines[header:]


def read_glue(data, task, split):
    """(first, second or None, class) of each whole row."""
    _, first, second, label, _ = TASKS[task]
    rows = [line.split("\t") for line in glue_lines(data, task, split)[1]]
    rows = [row for row in rows if len(row) == len(rows[0])]
    names = {"entailment": 0, "not_entailment": 1, "0": 0, "1": 1}
    return [(row[first], row[second] if second else None, names[row[label]]) for row in rows]


def squad_file(data, split):
    return json.loads((Path(data) / f"{split}-v1.1.json").read_text())


def read_squad(data, split):
    """Questions as (id, question, context, answers), answers as (text, start)."""
    questions = []
    for article in squad_file(data, split)["data"]:
        for paragraph in article["paragraphs"]:
            for qa in paragraph["qas"]:
                answers = [(a["text"], a["answer_start"]) for a in qa["answers"]]
                questions.append((qa["id"], qa["question"], paragraph["context"], answers))
    return questions


def subset(arguments, task, seed, root):
    """A copy of the data with as many examples as wanted, drawn by the seed, for both sides to read."""
    wanted = {"train": arguments.train_examples, "dev": arguments.dev_examples}
    if not any(wanted.values()):
        return arguments.data
    copy = Path(root) / f"{task}-data-{seed}"
    for split, count in wanted.items():
        # the development set is the same for every seed
        draw = random.Random(seed if split == "train" else 0)
        if task == "squad":
            file = squad_file(arguments.data, split)
            paragraphs = [paragraph for article in file["data"] for paragraph in article["paragraphs"]]
            ids = [qa["id"] for paragraph in paragraphs for qa in paragraph["qas"]]
            kept = set(draw.sample(ids, count) if count else ids)
            for paragraph in paragraphs:
                paragraph["qas"] = [qa for qa in paragraph["qas"] if qa["id"] in kept]
            name, text = f"{split}-v1.1.json", json.dumps(file)
        else:
            header, lines = glue_lines(arguments.data, task, split)
            lines = draw.sample(lines, count) if count else lines
            name, text = f"{TASKS[task][0]}/{split}.tsv", "\n".join(header + lines) + "\n"
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text(text, encoding="utf-8")
    return str(copy)


def start(arguments, task, seed, root):
    """The encoder with a head, new where it has none, for both sides to start from."""
    import torch
    from transformers import AutoTokenizer

    torch.manual_seed(seed)
    directory = Path(root) / f"{task}-start-{seed}"
    if not directory.exists():
        head(task).from_pretrained(arguments.model, dtype=torch.float32, **dropout(arguments)).save_pretrained(directory)
        AutoTokenizer.from_pretrained(arguments.model).save_pretrained(directory)
    return str(directory)


def head(task):
    from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification

    return AutoModelForQuestionAnswering if task == "squad" else AutoModelForSequenceClassification


def dropout(arguments):
    keys = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    return {} if arguments.dropout is None else dict.fromkeys(keys, arguments.dropout)


# ---- inputs --------------------------------------------------------------------------------------------------------


def glue_features(tokenizer, examples, length):
    texts = [[e[0] for e in examples]] + ([[e[1] for e in examples]] if examples[0][1] is not None else [])
    encoded = tokenizer(*texts, truncation=True, max_length=length)
    keys = [key for key in ("input_ids", "token_type_ids", "attention_mask") if key in encoded]
    return [{k: encoded[k][i] for k in keys} | {"labels": examples[i][2]} for i in range(len(examples))]


def squad_features(tokenizer, questions, length, stride=128):
    """Windows that start `stride` tokens apart, each with its answer's tokens, or 0 and 0."""
    features = []
    for number, (_, question, context, answers) in enumerate(questions):
        query = tokenizer(question, add_special_tokens=False, truncation=True, max_length=64)["input_ids"]
        room = length - len(query) - 3
        encoded = tokenizer(
            tokenizer.decode(query), context, truncation="only_second", max_length=length,
            stride=max(room - stride, 0), return_overflowing_tokens=True, return_offsets_mapping=True,
        )  # fmt: skip
        text, start = answers[0] if answers else ("", 0)
        if context[start : start + len(text)] != text:
            start = context.find(text)
        for i, ids in enumerate(encoded["input_ids"]):
            of_context = [s == 1 for s in encoded.sequence_ids(i)]
            offsets = encoded["offset_mapping"][i]
            inside = [t for t, own in enumerate(of_context) if own]
            begin = end = 0
            covered = inside and offsets[inside[0]][0] <= start and offsets[inside[-1]][1] >= start + len(text)
            if covered and start >= 0:
                touched = [t for t in inside if offsets[t][1] > start and offsets[t][0] < start + len(text)]
                begin, end = touched[0], touched[-1]
            features.append({
                "input_ids": ids, "token_type_ids": encoded["token_type_ids"][i],
                "attention_mask": encoded["attention_mask"][i], "start_positions": begin, "end_positions": end,
                "question": number, "offsets": offsets, "inside": inside,
            })  # fmt: skip
    return features


MODEL_KEYS = ("input_ids", "token_type_ids", "attention_mask", "labels", "start_positions", "end_positions")


def collate(features, pad_to, pad_id):
    import torch

    length = pad_to or max(len(f["input_ids"]) for f in features)
    batch = collections.defaultdict(list)
    for f in features:
        for key in MODEL_KEYS:
            if key not in f:
                continue
            value = f[key]
            if isinstance(value, list):
                fill = pad_id if key == "input_ids" else 0
                value = value + [fill] * (length - len(value))
            batch[key].append(value)
    return {key: torch.tensor(values) for key, values in batch.items()}


# ---- scores --------------------------------------------------------------------------------------------------------


def normalize(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def token_f1(prediction, gold):
    ours, theirs = normalize(prediction).split(), normalize(gold).split()
    common = sum((collections.Counter(ours) & collections.Counter(theirs)).values())
    if not ours or not theirs:
        return float(ours == theirs)
    return 0.0 if common == 0 else 2 * common / (len(ours) + len(theirs))


def squad_scores(questions, features, outputs):
    best = [(float("-inf"), "")] * len(questions)
    for feature, (start, end) in zip(features, outputs):
        inside, context = feature["inside"], questions[feature["question"]][2]
        starts = sorted(inside, key=lambda t: -start[t])[:20]
        ends = sorted(inside, key=lambda t: -end[t])[:20]
        pairs = [(start[s] + end[e], s, e) for s in starts for e in ends if s <= e < s + 30]
        if pairs:
            score, s, e = max(pairs)
            if score > best[feature["question"]][0]:
                best[feature["question"]] = (score, context[feature["offsets"][s][0] : feature["offsets"][e][1]])
    f1 = [max(token_f1(text, gold) for gold, _ in q[3]) for (_, text), q in zip(best, questions)]
    exact = [max(normalize(text) == normalize(gold) for gold, _ in q[3]) for (_, text), q in zip(best, questions)]
    return {"f1": 100 * statistics.mean(f1), "exact_match": 100 * statistics.mean(exact)}


def glue_scores(task, predictions, labels):
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    accuracy = accuracy_score(labels, predictions)
    if task == "cola":
        return {"matthews_correlation": matthews_corrcoef(labels, predictions)}
    if task == "mrpc":
        f1 = f1_score(labels, predictions)
        return {"accuracy": accuracy, "f1": f1, "acc_and_f1": (accuracy + f1) / 2}
    return {"accuracy": accuracy}


# ---- the PyTorch side ----------------------------------------------------------------------------------------------


class PyTorch:
    """One fine-tuning; `run` takes all steps, `epoch` one epoch for the clock."""

    def __init__(self, arguments, task, seed, data, model):
        import torch
        from transformers import AutoTokenizer

        torch.manual_seed(seed)
        self.arguments, self.task, self.seed = arguments, task, seed
        tokenizer = AutoTokenizer.from_pretrained(model)
        self.pad_id = tokenizer.pad_token_id
        self.model = head(task).from_pretrained(model, dtype=torch.float32, **dropout(arguments)).train()
        self.model.to(arguments.device)
        length = arguments.max_length
        if task == "squad":
            train, self.dev = read_squad(data, "train"), read_squad(data, "dev")
        else:
            train, self.dev = read_glue(data, task, "train"), read_glue(data, task, "dev")
        features = squad_features if task == "squad" else glue_features
        self.train, self.dev_features = features(tokenizer, train, length), features(tokenizer, self.dev, length)
        per_epoch = -(-len(self.train) // arguments.batch_size)
        self.steps = arguments.max_steps or per_epoch * arguments.epochs
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=arguments.learning_rate, eps=1e-8, weight_decay=0.0, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda t: max(0.0, 1 - t / self.steps))

    def batches(self, epoch):
        order = list(range(len(self.train)))
        random.Random(1000 * self.seed + epoch).shuffle(order)
        for i in range(0, len(order), self.arguments.batch_size):
            yield [self.train[j] for j in order[i : i + self.arguments.batch_size]]

    def on_device(self, batch):
        return {key: value.to(self.arguments.device) for key, value in batch.items()}

    def step(self, features):
        import torch

        pad_to = self.arguments.max_length if self.arguments.pad == "max" else None
        loss = self.model(**self.on_device(collate(features, pad_to, self.pad_id))).loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()

    def evaluate(self):
        import torch

        self.model.eval()
        outputs = [None] * len(self.dev_features)
        order = sorted(range(len(outputs)), key=lambda i: len(self.dev_features[i]["input_ids"]))
        with torch.inference_mode():
            for i in range(0, len(order), 32):
                chosen = order[i : i + 32]
                batch = collate([self.dev_features[j] for j in chosen], None, self.pad_id)
                batch = {k: v for k, v in batch.items() if k in ("input_ids", "token_type_ids", "attention_mask")}
                result = self.model(**self.on_device(batch))
                if self.task == "squad":
                    for row, j in enumerate(chosen):
                        outputs[j] = (result.start_logits[row].tolist(), result.end_logits[row].tolist())
                else:
                    for row, j in enumerate(chosen):
                        outputs[j] = int(result.logits[row].argmax())
        self.model.train()
        if self.task == "squad":
            return squad_scores(self.dev, self.dev_features, outputs)
        return glue_scores(self.task, outputs, [e[2] for e in self.dev])

    def run(self):
        done, best, epoch = 0, None, 0
        key = primary(self.task)
        while done < self.steps:
            for features in self.batches(epoch):
                if done == self.steps:
                    break
                self.step(features)
                done += 1
                if done % self.arguments.eval_every == 0 or done == self.steps:
                    scores = self.evaluate()
                    best = scores if best is None or scores[key] > best[key] else best
            epoch += 1
        return {"final": scores[key], "best": best[key], "steps": done}

    def epoch(self, number):
        start = time.perf_counter()
        for features in self.batches(number):
            self.step(features)
        return time.perf_counter() - start


# ---- the tamt side -------------------------------------------------------------------------------------------------


def tamt(arguments, task, seed, data, model, output, *more):
    command = [
        arguments.tamt, "tune", "--model", model, "--task", task, "--data", data,
        "--output-dir", output, "--seed", str(seed), "--max-length", str(arguments.max_length),
        "--batch-size", str(arguments.batch_size), "--learning-rate", str(arguments.learning_rate),
        "--eval-every", str(arguments.eval_every), "--threads", str(arguments.threads), "--json", "--quiet", *more,
    ]  # fmt: skip
    if arguments.dropout is not None:
        command += ["--dropout", str(arguments.dropout)]
    if arguments.ticket:
        command += ["--ticket", arguments.ticket]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def tamt_scores(arguments, task, seed, data, model, root):
    length = ["--max-steps", str(arguments.max_steps)] if arguments.max_steps else ["--epochs", str(arguments.epochs)]
    result = tamt(arguments, task, seed, data, model, str(Path(root) / f"{task}-{seed}"), *length)
    key = primary(task)
    return {"final": result[key], "best": result[f"best_{key}"], "steps": result["steps"]}


def tamt_epoch(arguments, task, root, turn):
    """Seconds of the steps of one epoch, from the run's own log: reading and evaluating are not in it."""
    output = Path(root) / f"epoch-{turn}"
    tamt(arguments, task, turn, arguments.data, arguments.model, str(output), "--epochs", "1", "--logging-steps", "1", "--keep", "final")
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss" in line]
    # the first step's own time is taken to be the median of the others
    times = [b["seconds"] - a["seconds"] for a, b in zip(steps, steps[1:])]
    return sum(times) + statistics.median(times)


# ---- the comparison ------------------------------------------------------------------------------------------------


def mean_and_std(values):
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.4f}"


def compare_scores(arguments):
    print(f"{'task':6} {'side':8} {'steps':>6} {'best':>17} {'final':>17}")
    with tempfile.TemporaryDirectory() as root:
        for task in arguments.tasks:
            sides = {
                "tamt": lambda seed, data, model: tamt_scores(arguments, task, seed, data, model, root),
                "PyTorch": lambda seed, data, model: PyTorch(arguments, task, seed, data, model).run(),
            }
            for name in arguments.sides:
                runs = []
                for seed in arguments.seeds:
                    data = subset(arguments, task, seed, root)
                    model = start(arguments, task, seed, root) if arguments.same_start else arguments.model
                    runs.append(sides[name](seed, data, model))
                best, final = ([r[key] for r in runs] for key in ("best", "final"))
                print(
                    f"{task:6} {name:8} {runs[0]['steps']:6} {mean_and_std(best):>17} {mean_and_std(final):>17}  "
                    f"{[round(b, 4) for b in best]}",
                    flush=True,
                )


def compare_speed(arguments):
    task = arguments.tasks[0]
    arguments.eval_every, times = 10**9, {"tamt": [], "PyTorch": []}
    peer = PyTorch(arguments, task, 1, arguments.data, arguments.model)
    with tempfile.TemporaryDirectory() as root:
        for turn in range(arguments.turns):
            times["tamt"].append(tamt_epoch(arguments, task, root, turn))
            times["PyTorch"].append(peer.epoch(turn))
            print(f"turn {turn}: " + "  ".join(f"{k} {v[-1]:.1f} s" for k, v in times.items()), flush=True)
    ours, theirs = (statistics.median(times[side]) for side in ("tamt", "PyTorch"))
    print(f"an epoch of {task}: tamt {ours:.1f} s, PyTorch {theirs:.1f} s, ratio {ours / theirs:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["scores", "speed"])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="the directory of GLUE's folders, or SQuAD's")
    parser.add_argument("--tasks", type=lambda s: s.split(","), default=list(TASKS))
    parser.add_argument("--seeds", type=lambda s: [int(x) for x in s.split(",")], default=[1, 2, 3])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max-steps", type=int)
    parser.add_argument("--train-examples", type=int, help="scores: train on N examples, drawn by the seed")
    parser.add_argument("--dev-examples", type=int, help="scores: evaluate on N examples")
    parser.add_argument("--same-start", action="store_true", help="scores: both sides start from the same head")
    parser.add_argument("--dropout", type=float, help="one rate everywhere; default the model's own")
    parser.add_argument("--ticket", help="what tamt fine-tunes; PyTorch's side has the dense model")
    parser.add_argument("--sides", type=lambda s: s.split(","), default=["tamt", "PyTorch"])
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--eval-every", type=int, default=50)
    parser.add_argument("--pad", choices=["max", "longest"], default="max")
    parser.add_argument("--device", default="cpu", help="where PyTorch computes, in f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--tamt", default=str(TAMT))
    arguments = parser.parse_args()

    import torch

    torch.set_num_threads(arguments.threads)
    compare_scores(arguments) if arguments.what == "scores" else compare_speed(arguments)


if __name__ == "__main__":
    main()
