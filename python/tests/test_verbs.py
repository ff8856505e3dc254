"""The verbs of the command as functions."""

import importlib.resources
import json
import logging
import os
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import sentences

import tamt
from tamt import _native
from tamt._stubs import stubs
from tamt.verbs import VERBS


@pytest.fixture(scope="module")
def training(model, corpus):
    """Settings of a search that trains."""
    return {
        "model": model,
        "method": "tamt-mlm",
        "sparsity": 0.5,
        "corpus": corpus,
        "max_steps": 6,
        "block_size": 16,
        "batch_size": 4,
        "save_minutes": 0,
        "precision": "f32",
        "kernel": "dense",
    }


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Path:
    """Texts that are red or not."""
    directory = tmp_path_factory.mktemp("task")
    (directory / "task.toml").write_text(
        'name = "red"\nkind = "classification"\nlabels = ["no", "yes"]\nmetrics = ["accuracy"]\n'
        '[files]\ntrain = "train.jsonl"\ndev = "dev.jsonl"\n[columns]\nfirst = "text"\nlabel = "red"\n'
    )
    for name, count, seed in (("train", 64, 5), ("dev", 16, 6)):
        rows = [{"text": text, "red": "yes" if "red" in text.split() else "no"} for text in sentences(count, seed)]
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


@pytest.fixture(scope="module")
def tuned(model, ticket, task, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tuned") / "run"
    return tamt.tune(
        model, ticket=ticket, task_file=task / "task.toml", data=task, output_dir=directory, max_steps=5, batch_size=8
    )


def test_a_search_returns_its_result_and_its_ticket(ticket, model, tmp_path):
    found = tamt.find(model=str(model), method="magnitude", sparsity=0.7, output_dir=tmp_path / "again")
    assert found["sparsity"] == pytest.approx(0.7, abs=0.01)
    assert found.directory == tmp_path / "again"
    assert found.ticket() == tamt.Ticket.load(ticket)


def test_a_file_of_settings_may_name_the_directory_of_a_run(model, ticket, tmp_path):
    (tmp_path / "search.toml").write_text(f'output-dir = "{tmp_path / "run"}"\n')
    found = tamt.find(model, method="magnitude", sparsity=0.7, config=tmp_path / "search.toml")
    assert found.directory == tmp_path / "run" and found.ticket() == tamt.Ticket.load(ticket)


def test_unknown_keywords_are_refused_with_the_nearest_one(model):
    with pytest.raises(tamt.UnknownSettingError, match="unknown setting max_step; did you mean max_steps?"):
        tamt.find(model, max_step=3)
    for error in (TypeError, ValueError, tamt.TamtError):
        with pytest.raises(error):
            tamt.tune(model, sed=3)
    for setting in ("json", "quiet"):
        with pytest.raises(tamt.UnknownSettingError):
            tamt.find(model, **{setting: True})


def test_errors_have_the_messages_of_the_command_in_terms_of_keywords(model, ticket, tmp_path):
    def message(error, call, *arguments, **settings):
        with pytest.raises(error) as raised:
            call(*arguments, **settings)
        return str(raised.value)

    wanted = {"method": "magnitude", "output_dir": tmp_path / "x"}
    problem = "it is the fraction of weights to prune, above 0 and below 1; did you mean 0.7?"
    text = message(tamt.SettingError, tamt.find, model, sparsity=70, **wanted)
    assert text == f"invalid value '70' for 'sparsity': {problem}"
    assert message(tamt.SettingError, tamt.find, model, **wanted) == "missing settings:\n  sparsity"
    text = message(tamt.SettingError, tamt.find, model, sparsity=0.5, output_dir="x", method="magnitud")
    assert "possible values: random, magnitude" in text and "--" not in text
    assert message(tamt.SettingError, tamt.find, model, sparsity=0.5, output_dir="x", method="imp", corpus="c") == (
        "imp trains: give max_steps N, or preset short or paper"
    )
    text = message(tamt.RunError, tamt.find, model, method="random", sparsity=0.5, output_dir=ticket)
    assert "already holds a run" in text and "hint: give resume=True to go on" in text
    assert "no-such-file" in message(
        tamt.DataError, tamt.evaluate, model, corpus=tmp_path / "no-such-file"
    )
    with pytest.raises(TypeError, match="not a dict|not object"):
        tamt.find(model, sparsity={})


def test_events_tell_how_a_run_goes(training, tmp_path, corpus):
    events = []
    found = tamt.find(
        **training, output_dir=tmp_path / "run", eval_corpus=corpus, eval_every=3, progress=events.append
    )
    assert threading.current_thread() is threading.main_thread()
    steps = [event for event in events if event["event"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4, 5, 6]
    assert all(event["loss"] > 0 and event["total"] == 6 for event in steps)
    evaluated = [event for event in events if event["event"] == "evaluated"]
    assert {event["step"] for event in evaluated} >= {3, 6}
    assert evaluated[-1]["values"]["mlm_loss"] == pytest.approx(found["mlm_loss"])


@pytest.mark.parametrize("how", ["in the callback", "from outside"])
def test_ctrl_c_saves_a_checkpoint_and_the_resumed_run_ends_as_if_never_stopped(training, tmp_path, how):
    whole = tamt.find(**training, output_dir=tmp_path / "whole")

    def interrupt(event):
        if event["event"] == "step" and event["step"] == 2:
            if how == "in the callback":
                signal.raise_signal(signal.SIGINT)
            subprocess.run(["kill", "-INT", str(os.getpid())], check=True)

    with pytest.raises(tamt.Interrupted) as stopped:
        tamt.find(**training, output_dir=tmp_path / "run", progress=interrupt)
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert 2 <= stopped.value.step < 6 and Path(stopped.value.checkpoint).is_dir()
    resumed = tamt.find(output_dir=tmp_path / "run", resume=True)
    assert resumed.ticket() == whole.ticket()
    assert resumed["steps"] == 6


def test_a_run_stopped_ahead_of_its_first_step_leaves_no_directory(training, tmp_path):
    def interrupt(event):
        raise KeyboardInterrupt

    directory = tmp_path / "run"
    with pytest.raises(tamt.Interrupted) as stopped:
        tamt.find(**training, output_dir=directory, progress=interrupt)
    assert stopped.value.checkpoint is None and not directory.exists()


def test_the_command_goes_on_with_a_run_of_the_package(training, tmp_path, command):
    whole = tamt.find(**training, output_dir=tmp_path / "whole")

    def interrupt(event):
        if event["event"] == "step" and event["step"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tamt.find(**training, output_dir=tmp_path / "run", progress=interrupt)
    subprocess.run([command, "find", "--output-dir", tmp_path / "run", "--resume"], check=True, capture_output=True)
    assert tamt.Ticket.load(tmp_path / "run") == whole.ticket()


def test_a_tuned_model_is_evaluated_and_predicts(tuned, task, ticket, tmp_path):
    assert tuned["steps"] == 5
    scores = tamt.evaluate(tuned.directory, task_file=task / "task.toml", data=task)
    assert scores["examples"] == 16 and 0 <= scores["accuracy"] <= 1
    texts = sentences(10, seed=7)
    predictions = tamt.predict(tuned.directory, texts)
    assert len(predictions) == 10
    for prediction in predictions:
        assert prediction["label"] in ("no", "yes")
        assert sum(prediction["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    target = tmp_path / "labels.jsonl"
    summary = tamt.predict(tuned.directory, input=tmp_path / "texts.txt", output=target)
    assert summary["records"] == 10
    labels = [json.loads(line)["label"] for line in target.read_text().splitlines()]
    assert labels == [prediction["label"] for prediction in predictions]
    assert tamt.predict(tuned.directory, []) == []
    with pytest.raises(tamt.SettingError, match="columns"):
        tamt.predict(tuned.directory, texts, columns="a")
    with pytest.raises(tamt.SettingError, match="number 1"):
        tamt.predict(tuned.directory, ["one", ("a", "pair")])


def test_losses_on_text_are_measured_and_notes_go_to_the_logger(model, ticket, corpus, caplog):
    with caplog.at_level(logging.INFO, logger="tamt"):
        losses = tamt.evaluate(model, ticket=ticket, corpus=corpus, block_size=16, max_tokens=200)
    assert losses["mlm_loss"] > 0 and losses["kd_cosine"] > 0
    assert any("only the first 200" in record.message for record in caplog.records)


def test_nothing_is_printed(model, tmp_path, capfd):
    tamt.find(model, method="random", sparsity=0.5, output_dir=tmp_path / "run")
    assert capfd.readouterr() == ("", "")
    tamt.find(model, method="random", sparsity=0.5, output_dir=tmp_path / "two", threads=1, show_progress=True)
    assert capfd.readouterr().out == ""


def test_every_setting_is_documented_and_the_types_are_those_of_the_command():
    for name, verb in VERBS.items():
        for setting in _native.settings(verb):
            assert setting["name"] in getattr(tamt, name).__doc__, setting["name"]
    written = importlib.resources.files("tamt").joinpath("verbs.pyi").read_text()
    assert written == stubs(), "python -m tamt._stubs > python/tamt/verbs.pyi"
