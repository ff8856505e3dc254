"""What the golden files hold, computed with PyTorch and transformers from a checkpoint and stored inputs.

Everything runs on the CPU with dropout off. `README.md` lists the files; this is the mathematics behind them.

Masked weights. A pruned matrix W of n elements is frozen and carries a score M per element: 0.02 where the weight is kept
at the start, 0 where it is dropped. The mask is B = [M > threshold], the layer computes with W o B, and the gradient is
straight-through: dL/dM = dL/d(W o B) o W everywhere. The row of the padding token gets no gradient. The MLM decoder
multiplies with the unmasked embedding matrix. The threshold starts at 0.01 and is re-set, per matrix, to the k-th smallest
score, k = floor(n s). A magnitude mask drops exactly the k smallest |W|, the lower index first among equals.

Optimisers (lr is the scheduled rate of the update; m and v are the usual moments with betas 0.9 and 0.999):
  AdamW     p -= lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps), then p -= lr decay p. The epsilon is added to the
            uncorrected sqrt(v), as in the original transformers optimiser; `torch.optim.AdamW` adds it after correction.
  BertAdam  p -= lr (m / (sqrt(v) + eps) + decay p), no bias correction.
Clipping scales gradients by min(1, 1 / (norm + 1e-6)): one norm over everything for AdamW, one per tensor for BertAdam.

Distillation terms, for the student's and the teacher's layer outputs H_l [batch, length, hidden], l = 1..L (the embedding
output is not among them). Every sequence has the same length and no padding.
  representation.full.R        mean over l of R(H_l), R taken over all positions
  representation.cls.R         mean over l of R(H_l), R taken over position 0 only
  representation.last_layer.R  R(H_L), R taken over all positions
      R = mse: mean over all elements of the squared difference; R = cosine: mean over vectors of 1 - cos
  attention                    mean over l of the mean over [batch, head, query, key] of the squared difference of the
                               scores Q K^T / sqrt(head size) before softmax, entries <= -100 set to 0 on both sides
  relation.token.full          mean over l of the mean over [batch, position, position] of the squared difference of
                               H_l H_l^T / sqrt(hidden)
  relation.token.last_layer    the same for l = L only
  relation.sample.*            the same with the [batch, batch] Gram matrix of the states at position 0, / sqrt(hidden)
"""

import math

import torch
import torch.nn.functional as F
import transformers

HORIZON = 100
# Gradients of the distillation terms are kept for these matrices only: an error in any term reaches them.
VARIANT_MODULES = ("0.attention.self.query", "0.intermediate.dense")
DTYPE = {"f32": torch.float32, "f64": torch.float64}


# ---- masks ---------------------------------------------------------------------------------------------------------


class Binarise(torch.autograd.Function):
    """[score > threshold] forwards, the identity backwards."""

    @staticmethod
    def forward(_, score, threshold):
        return (score > threshold).to(score.dtype)

    @staticmethod
    def backward(_, gradient):
        return gradient, None


def prunable(model):
    """Name and module of every matrix a mask applies to."""
    for name, module in model.named_modules():
        inside = ".encoder.layer." in name or name.endswith("pooler.dense")
        if name.endswith("word_embeddings") or (inside and isinstance(module, torch.nn.Linear)):
            yield name, module


def magnitude_mask(weight, sparsity):
    order = weight.detach().abs().flatten().argsort(stable=True)
    mask = torch.ones(weight.numel(), dtype=weight.dtype)
    mask[order[: int(weight.numel() * sparsity)]] = 0
    return mask.view_as(weight)


class MaskedModel:
    """A model whose prunable weights are frozen and multiplied by trainable masks."""

    def __init__(self, model, sparsity):
        self.model, self.sparsity, self.scores, self.thresholds = model, sparsity, {}, {}
        self.margin = math.inf
        model.requires_grad_(False)
        for name, module in prunable(model):
            score = 0.02 * magnitude_mask(module.weight, sparsity)
            self.scores[name] = score.requires_grad_()
            self.thresholds[name] = torch.tensor(0.01, dtype=score.dtype)
            module.forward = self._forward(name, module)

    def _forward(self, name, module):
        def forward(x):
            weight = module.weight * Binarise.apply(self.scores[name], self.thresholds[name])
            if isinstance(module, torch.nn.Embedding):
                return F.embedding(x, weight, module.padding_idx)
            return F.linear(x, weight, module.bias)

        return forward

    def rethreshold(self):
        for name, score in self.scores.items():
            k = int(score.numel() * self.sparsity)
            self.thresholds[name] = score.detach().flatten().kthvalue(k).values

    def observe_margin(self):
        """Track how near any score comes to its threshold without being it: rounding flips a mask bit below that."""
        for name, score in self.scores.items():
            distance = (score.detach() - self.thresholds[name]).abs()
            self.margin = min(self.margin, distance[distance > 0].min().item())

    def masks(self):
        return {name: (score > self.thresholds[name]).to(torch.uint8) for name, score in self.scores.items()}


# ---- optimisers and schedules --------------------------------------------------------------------------------------


class Adam:
    def __init__(self, parameters, rate, eps, decay, bert):
        self.parameters, self.rate, self.eps, self.decay, self.bert = list(parameters), rate, eps, decay, bert
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        self.updates = 0

    @torch.no_grad()
    def step(self, factor):
        self.updates += 1
        rate = self.rate * factor
        groups = [[p] for p in self.parameters] if self.bert else [self.parameters]
        for group in groups:
            torch.nn.utils.clip_grad_norm_(group, 1.0)
        for parameter, (m, v) in zip(self.parameters, self.moments):
            if parameter.grad is None:
                continue
            m.mul_(0.9).add_(parameter.grad, alpha=0.1)
            v.mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
            direction = m / (v.sqrt() + self.eps)
            if self.bert:
                parameter -= rate * (direction + self.decay * parameter)
            else:
                correction = math.sqrt(1 - 0.999**self.updates) / (1 - 0.9**self.updates)
                parameter -= rate * correction * direction
                parameter -= rate * self.decay * parameter
            parameter.grad = None


def adamw(parameters, rate, decay=0.0):
    return Adam(parameters, rate, 1e-8, decay, bert=False)


def bert_adam(parameters, rate, decay=0.01):
    return Adam(parameters, rate, 1e-6, decay, bert=True)


def linear(update, horizon=HORIZON):
    return max(0.0, 1 - update / horizon)


def schedules():
    """Factors of transformers' own schedules at updates 0..=20 of 20."""

    def factors(make, **arguments):
        optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        schedule = make(optimiser, **arguments)
        return [schedule.lr_lambdas[0](update) for update in range(21)]

    result = []
    for warmup in (0, 5):
        for name, horizon in (("constant", {}), ("linear", {"num_training_steps": 20}), ("cosine", {"num_training_steps": 20})):
            make = getattr(transformers, f"get_{name}_schedule_with_warmup")
            values = factors(make, num_warmup_steps=warmup, **horizon)
            result.append({"schedule": name, "warmup_steps": warmup, "training_steps": 20, "factors": values})
    return result


def optimiser_trajectories():
    """40 numbers under gradients of very different sizes, f64: learning rate 2e-3, linear decay over 20 updates."""
    generator = torch.Generator().manual_seed(11)
    start = torch.randn(40, generator=generator, dtype=torch.float64)
    size = 10 ** (8 * torch.rand(40, generator=generator, dtype=torch.float64) - 8)
    gradients = size * torch.randn(20, 40, generator=generator, dtype=torch.float64)
    gradients[13:15] = 0
    result = {"start": start, "gradients": gradients}
    for name, make in {
        "adamw": lambda p: adamw(p, 2e-3),
        "adamw_decay": lambda p: adamw(p, 2e-3, decay=0.01),
        "bert_adam": lambda p: bert_adam(p, 2e-3),
    }.items():
        parameter, path = start.clone(), []
        optimiser = make([parameter])
        for update, gradient in enumerate(gradients):
            parameter.grad = gradient.clone()
            optimiser.step(linear(update, 20))
            path.append(parameter.clone())
        result[name] = torch.stack(path)
    return result


# ---- losses --------------------------------------------------------------------------------------------------------


def mlm_loss(logits, labels):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten().long(), ignore_index=-100)


def cosine_distance(student, teacher):
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


def mean_over_layers(loss, student, teacher):
    return torch.stack([loss(s, t) for s, t in zip(student, teacher)]).mean()


def layer_outputs(model, input_ids):
    return model(input_ids, output_hidden_states=True).hidden_states[1:]


def attention_scores(model, input_ids):
    """Q K^T / sqrt(head size) of every layer, from the outputs of the query and key projections."""
    outputs, handles = {}, []
    for name, module in model.named_modules():
        if name.endswith((".attention.self.query", ".attention.self.key")):
            handles.append(module.register_forward_hook(lambda _, __, out, name=name: outputs.__setitem__(name, out)))
    model(input_ids)
    for handle in handles:
        handle.remove()
    heads = model.config.num_attention_heads
    scores = []
    for name, query in outputs.items():
        if name.endswith("query"):
            key = outputs[name.removesuffix("query") + "key"]
            query, key = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key))
            score = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            scores.append(torch.where(score <= -100, torch.zeros_like(score), score))
    return scores


def distillation_terms(student, teacher, input_ids):
    """Name and value of every distillation term in the module's description."""
    with torch.no_grad():
        want, want_scores = layer_outputs(teacher, input_ids), attention_scores(teacher, input_ids)
    have, have_scores = layer_outputs(student, input_ids), attention_scores(student, input_ids)
    hidden = math.sqrt(have[0].shape[-1])
    layers = {"full": (have, want), "last_layer": (have[-1:], want[-1:])}

    first = tuple([h[:, :1] for h in states] for states in (have, want))
    for scope, pick in (layers | {"cls": first}).items():
        yield f"representation.{scope}.mse", mean_over_layers(F.mse_loss, *pick)
        yield f"representation.{scope}.cosine", mean_over_layers(cosine_distance, *pick)
    yield "attention", mean_over_layers(F.mse_loss, have_scores, want_scores)
    for scope, pick in layers.items():
        token = [[h @ h.transpose(-1, -2) / hidden for h in states] for states in pick]
        yield f"relation.token.{scope}", mean_over_layers(F.mse_loss, *token)
        sample = [[h[:, 0] @ h[:, 0].T / hidden for h in states] for states in pick]
        yield f"relation.sample.{scope}", mean_over_layers(F.mse_loss, *sample)


# ---- files: what is computed from a checkpoint and the stored inputs -----------------------------------------------


def load(directory, dtype, head="MaskedLM"):
    make = getattr(transformers, f"AutoModelFor{head}")
    return make.from_pretrained(directory, attn_implementation="eager", dtype=DTYPE[dtype], local_files_only=True).eval()


def forward(directory, inputs, dtype):
    with torch.no_grad():
        output = load(directory, dtype)(inputs["input_ids"], output_hidden_states=True)
    return {f"hidden.{i}": h for i, h in enumerate(output.hidden_states)} | {"logits": output.logits}


def mlm_grad(directory, inputs, dtype):
    model = load(directory, dtype)
    loss = mlm_loss(model(inputs["input_ids"]).logits, inputs["labels"])
    loss.backward()
    return {"loss": loss.reshape(1)} | {f"grad.{name}": p.grad for name, p in model.named_parameters()}


def magnitude(directory, _, dtype):
    modules = dict(prunable(load(directory, dtype)))
    return {
        f"{sparsity}.{name}": magnitude_mask(module.weight, sparsity).to(torch.uint8)
        for sparsity in (0.3, 0.7, 0.9)
        for name, module in modules.items()
    }


def mask_training(objective):
    def compute(directory, inputs, dtype):
        masked, teacher = MaskedModel(load(directory, dtype), 0.7), load(directory, dtype)
        parameters = list(masked.scores.values())
        if objective == "kd":
            optimiser = bert_adam(parameters, 2e-3)
        else:
            head = [p for name, p in masked.model.named_parameters() if "predictions" in name or "lm_head" in name]
            optimiser = adamw(parameters + [p.requires_grad_() for p in head], 2e-3)
        steps = sum(name.endswith(".input_ids") for name in inputs)
        losses, result = [], {}
        for step in range(steps):
            input_ids = inputs[f"step.{step}.input_ids"]
            output = masked.model(input_ids, output_hidden_states=True)
            loss = 0.0
            if "mlm" in objective:
                loss = loss + mlm_loss(output.logits, inputs[f"step.{step}.labels"])
            if "kd" in objective:
                with torch.no_grad():
                    target = layer_outputs(teacher, input_ids)
                loss = loss + mean_over_layers(cosine_distance, output.hidden_states[1:], target)
            loss.backward()
            losses.append(loss.item())
            if step == 0:
                result |= {f"first_grad.{name}": score.grad.clone() for name, score in masked.scores.items()}
            optimiser.step(linear(step))
            if (step + 1) % (steps // 3) == 0:
                masked.rethreshold()
            masked.observe_margin()
        result |= {"losses": torch.tensor(losses), "margin": torch.tensor([masked.margin])}
        result |= {f"score.{name}": score for name, score in masked.scores.items()}
        return result | {f"mask.{name}": mask for name, mask in masked.masks().items()}

    return compute


def tune(directory, inputs, dtype):
    model = load(directory / "classifier", dtype, "SequenceClassification")
    masks = {module.weight: magnitude_mask(module.weight, 0.7) for _, module in prunable(model)}
    optimiser = adamw(model.parameters(), 5e-4)
    with torch.no_grad():
        for weight, mask in masks.items():
            weight *= mask
    losses = []
    for step in range(sum(name.endswith(".input_ids") for name in inputs)):
        batch = {name: inputs[f"step.{step}.{name}"].long() for name in ("input_ids", "token_type_ids", "labels")}
        output = model(batch["input_ids"], token_type_ids=batch["token_type_ids"])
        loss = F.cross_entropy(output.logits, batch["labels"])
        loss.backward()
        losses.append(loss.item())
        for weight, mask in masks.items():
            weight.grad *= mask
        optimiser.step(linear(step))
    with torch.no_grad():
        logits = model(batch["input_ids"], token_type_ids=batch["token_type_ids"]).logits
    final = {f"final.{name}": parameter for name, parameter in model.named_parameters()}
    return {"losses": torch.tensor(losses), "final_logits": logits} | final


def kd_variants(directory, inputs, dtype):
    student, teacher = MaskedModel(load(directory, dtype), 0.5), load(directory, dtype)
    kept = {name: score for name, score in student.scores.items() if name.endswith(VARIANT_MODULES)}
    result = {}
    for variant, loss in distillation_terms(student.model, teacher, inputs["input_ids"]):
        gradients = torch.autograd.grad(loss, list(kept.values()), retain_graph=True, allow_unused=True)
        result[f"loss.{variant}"] = loss.reshape(1)
        for (name, score), gradient in zip(kept.items(), gradients):
            result[f"grad.{variant}.{name}"] = torch.zeros_like(score) if gradient is None else gradient
    return result


FILES = {
    "forward": forward,
    "mlm_grad": mlm_grad,
    "magnitude": magnitude,
    "train_mlm": mask_training("mlm"),
    "train_kd": mask_training("kd"),
    "train_mlm_kd": mask_training("mlm_kd"),
    "tune": tune,
    "kd_variants": kd_variants,
}
