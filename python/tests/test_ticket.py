"""Tickets as numpy arrays."""

import numpy as np
import pytest

import tamt

NAME = "encoder.layer.0.attention.self.query.weight"


def test_masks_have_the_sparsity_that_the_ticket_says(ticket):
    loaded = tamt.Ticket.load(ticket)
    masks = dict(loaded.masks)
    assert masks[NAME].shape == (32, 32) and masks[NAME].dtype == np.bool_
    for name, mask in masks.items():
        assert (~mask).sum() == int(mask.size * 0.7), name
        assert loaded.sparsity(name) == pytest.approx((~mask).mean())
    everything = np.concatenate([mask.ravel() for mask in masks.values()])
    assert loaded.sparsity() == pytest.approx((~everything).mean())
    assert loaded.sparsities().keys() == masks.keys()
    assert loaded.provenance["method"] == "magnitude" and loaded.provenance["sparsity"] == 0.7
    with pytest.raises(KeyError, match="nothing"):
        loaded.masks["nothing"]


def test_a_ticket_of_its_own_masks_is_accepted_and_saved(model, ticket, tmp_path):
    loaded = tamt.Ticket.load(ticket)
    for base in (model, tamt.Encoder(model)):
        made = tamt.Ticket.from_masks(dict(loaded.masks), base=base)
        assert made.jaccard(loaded) == 1 and made.provenance["method"] == "imported"
        made.save(tmp_path / "made.safetensors")
        assert tamt.Ticket.load(tmp_path / "made.safetensors") == made != loaded
    vectors = [tamt.Encoder(model, source).encode("the cat sat") for source in (ticket, loaded, made)]
    assert np.array_equal(vectors[0], vectors[1]) and np.array_equal(vectors[0], vectors[2])


def test_masks_with_other_names_types_and_layouts_are_taken(model):
    mask = np.zeros((64, 32), dtype=np.int64)
    mask[3] = 1
    name = "bert.encoder.layer.1.intermediate.dense.weight_mask"
    made = tamt.Ticket.from_masks({name: np.asfortranarray(mask)}, base=model)
    assert list(made.masks) == ["encoder.layer.1.intermediate.dense.weight"]
    assert np.array_equal(made.masks["encoder.layer.1.intermediate.dense.weight"], mask == 1)


def test_masks_that_do_not_fit_are_refused(model):
    fitting = np.ones((32, 32), dtype=bool)
    refused = [
        ({"nothing.weight": fitting}, tamt.TicketError, "nothing.weight"),
        ({NAME: fitting[:3]}, tamt.TicketError, "3 x 32 in the mask and 32 x 32 in the model"),
        ({NAME: fitting[0]}, tamt.TicketError, "two dimensions"),
        ({NAME: fitting * 2}, tamt.SettingError, "other values than 0 and 1"),
        ({NAME: fitting, "bert." + NAME: fitting}, tamt.TicketError, "second mask"),
        ({}, tamt.SettingError, "there are none"),
    ]
    for masks, error, text in refused:
        with pytest.raises(error, match=text):
            tamt.Ticket.from_masks(masks, base=model)


def test_the_similarity_of_two_tickets_is_the_mean_of_their_matrices(model, ticket, tmp_path):
    found = tamt.find(model, method="random", sparsity=0.5, seed=3, output_dir=tmp_path / "random")
    one, other = tamt.Ticket.load(ticket), found.ticket()
    pairs = [(mask, other.masks[name]) for name, mask in one.masks.items()]
    expected = [(mask & theirs).sum() / (mask | theirs).sum() for mask, theirs in pairs]
    assert one.jaccard(other) == pytest.approx(np.mean(expected)) == pytest.approx(other.jaccard(one))
    single = tamt.Ticket.from_masks({NAME: one.masks[NAME]}, base=model)
    with pytest.raises(tamt.TicketError, match="mask it"):
        one.jaccard(single)


def test_arrays_under_a_ticket_have_zeros_and_the_given_ones_stay(ticket):
    loaded = tamt.Ticket.load(ticket)
    state = {"bert." + name: np.full(mask.shape, np.nan) for name, mask in loaded.masks.items()}
    state["bert.embeddings.LayerNorm.weight"] = np.ones(32)
    state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    applied = loaded.apply_to(state)
    assert list(applied) == list(state)
    for name, mask in loaded.masks.items():
        assert np.isnan(state["bert." + name]).all()
        assert np.array_equal(np.isnan(applied["bert." + name]), mask), name
    assert applied["cls.predictions.decoder.weight"] is applied["bert.embeddings.word_embeddings.weight"]
    assert applied["bert.embeddings.LayerNorm.weight"] is state["bert.embeddings.LayerNorm.weight"]
    with pytest.raises(tamt.TicketError, match="no such tensor"):
        loaded.apply_to({})
    with pytest.raises(tamt.TicketError, match="32 x 32 in the ticket and 2 x 2 in the model"):
        loaded.apply_to({**state, "bert." + NAME: np.zeros((2, 2))})


def test_a_torch_model_under_a_ticket_gives_the_vectors_of_the_encoder(model, ticket):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    loaded = tamt.Ticket.load(ticket)
    masked = transformers.BertForMaskedLM.from_pretrained(model).eval()
    masked.load_state_dict(loaded.apply_to(masked.state_dict()))
    weights = masked.bert.embeddings.word_embeddings.weight
    assert masked.cls.predictions.decoder.weight.data_ptr() == weights.data_ptr()
    mask = torch.from_numpy(loaded.masks["embeddings.word_embeddings.weight"])
    assert (weights[~mask] == 0).all() and (weights[mask] != 0).all()
    text = "the cat sat on the mat"
    tokens = transformers.AutoTokenizer.from_pretrained(model)(text, return_tensors="pt")
    with torch.no_grad():
        states = masked.bert(**tokens).last_hidden_state[0]
    ours = tamt.Encoder(model, ticket, precision="f32").encode(text)
    assert np.allclose(ours, states.mean(dim=0).numpy(), atol=1e-5)
    tensors = {name: torch.from_numpy(mask) for name, mask in loaded.masks.items()}
    assert tamt.Ticket.from_masks(tensors, base=model).jaccard(loaded) == 1
