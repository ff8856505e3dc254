//! The files and the output of `find`, and settings without effect on them.

use std::fs;
use std::path::Path;

use predicates::prelude::PredicateBooleanExt;
use predicates::str::{contains, is_empty};
use serde_json::Value;

use crate::common::{Tensors, at, bert, bytes, corpus, golden, json_file, keeps, masked, object, result_of, tamt};
use crate::task_files::cola;

const WORDS: &str = "embeddings.word_embeddings.weight";
const QUERY: &str = "encoder.layer.0.attention.self.query.weight";

/// A large learning rate, so that a few steps change the masks.
fn training(method: &str, output: &str) -> String {
    format!(
        "find --model {} --method {method} --sparsity 0.7 --corpus {} --output-dir {output} --max-steps 24 \
         --batch-size 4 --block-size 16 --learning-rate 2e-3 --rethreshold-every 5",
        bert(),
        corpus()
    )
}

fn one_shot(method: &str, output: &str) -> String {
    format!("find --model {} --method {method} --sparsity 0.7 --output-dir {output}", bert())
}

#[test]
fn magnitude_drops_exactly_the_smallest_weights_of_each_matrix() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let result = object(&tamt(&format!("{} --json", one_shot("magnitude", &run))).success());
    let (ticket, model) =
        (Tensors::read(format!("{run}/ticket.safetensors")), Tensors::read(bert() + "/model.safetensors"));
    let mut dropped = 0;
    for name in ticket.names() {
        let matrix = masked("bert", &name);
        let weights = model.floats(&matrix);
        let cols = model.shape(&matrix)[1];
        let mut order: Vec<usize> = (0..weights.len()).collect();
        order.sort_by(|&a, &b| weights[a].abs().total_cmp(&weights[b].abs()).then(a.cmp(&b)));
        let zeros = (weights.len() as f64 * 0.7).floor() as usize;
        dropped += zeros;
        for (rank, &index) in order.iter().enumerate() {
            let kept = keeps(ticket.bytes(&name), cols, index / cols, index % cols);
            assert_eq!(kept, rank >= zeros, "{matrix}: weight {index}");
        }
    }
    assert_eq!(ticket.names().len(), 13);
    // 96 x 16 word embeddings; 4 x 16 x 16 + 2 x 16 x 32 in each of 2 layers.
    assert_eq!(result["sparsity"], dropped as f64 / 5632.0);
    assert_eq!(result["steps"], 0);
    assert_eq!(result["output_dir"], run);
}

#[test]
fn the_headline_of_a_training_has_the_size_of_its_steps_also_by_default() {
    let directory = tempfile::tempdir().unwrap();
    let (model, text, data) = (bert(), corpus(), cola(&directory.path().join("cola")));
    for (i, (line, headline)) in [
        (
            format!("find --model {model} --corpus {text} --method tamt-kd --sparsity 0.5"),
            "tamt-kd at sparsity 0.5, 1 steps of 16 sequences of 40 tokens\n",
        ),
        (
            format!("find --model {model} --corpus {text} --method imp --sparsity 0.2 --batch-size 1"),
            "imp at sparsity 0.2, 1 steps of 1 sequence of 40 tokens\n",
        ),
        (
            format!("pretrain --model {model} --corpus {text}"),
            "pre-training all weights, 1 steps of 16 sequences of 40 tokens\n",
        ),
        (
            format!("tune --model {model} --task cola --data {data}"),
            "fine-tuning the dense model on cola, steps of 32 examples of up to 40 tokens\n",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        tamt(&format!("{line} --max-steps 1 --output-dir {}", at(&directory, i.to_string())))
            .success()
            .stdout(contains(headline));
    }
}

#[test]
fn a_run_tells_what_it_does_before_and_shows_the_rates_after() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    tamt(&format!("{} --dropout 0.25 --precision f32", training("tamt-mlm", &run)))
        .success()
        .stdout(contains("tamt-mlm at sparsity 0.7, 24 steps of 4 sequences of 16 tokens\n"))
        .stdout(contains("(1,656 tokens)").and(contains(format!("output      {run}\n"))))
        .stdout(contains(
            "batch-size 4, block-size 16, dropout 0.25, optimizer.learning-rate 0.002, rethreshold-every 5\n",
        ))
        .stdout(contains("encoder only: sparsity 0.699219, 1,232 of 4,096 weights kept\n"))
        .stdout(contains("all prunable: sparsity 0.699396, 1,693 of 5,632 weights kept\n"))
        .stdout(contains(format!("ticket: {run}/ticket.safetensors\n")));
    for name in ["config.toml", "trainer_state.json", "eval_results.json", "log.jsonl", "mlm_head.safetensors"] {
        assert!(Path::new(&run).join(name).is_file(), "{name}");
    }
    assert!(fs::read_to_string(format!("{run}/config.toml")).unwrap().contains("learning-rate = 0.002\n"));
}

#[test]
fn with_json_stdout_is_one_object_whatever_the_method_and_text_goes_to_stderr() {
    let directory = tempfile::tempdir().unwrap();
    for method in ["random", "magnitude", "imp", "tamt-mlm", "tamt-kd", "tamt-mlm-kd"] {
        let line = training(method, &at(&directory, method));
        let assert = tamt(&format!("{line} --eval-corpus {} --json", corpus())).success().stderr(contains(method));
        let result = object(&assert);
        for key in ["output_dir", "steps", "seconds", "sparsity", "mlm_loss", "perplexity", "mlm_accuracy", "kd_cosine"]
        {
            assert!(!result[key].is_null(), "{method}: {key} in {result:?}");
        }
        let written = json_file(at(&directory, method) + "/eval_results.json");
        assert_eq!(written, Value::Object(result), "{method}");
    }
}

#[test]
fn with_quiet_nothing_is_printed_but_the_result() {
    let directory = tempfile::tempdir().unwrap();
    tamt(&format!("{} --quiet", training("tamt-mlm", &at(&directory, "run"))))
        .success()
        .stdout(contains("encoder only").and(contains("steps\n").not()).and(contains("settings").not()))
        .stderr(is_empty());
}

#[test]
fn training_moves_masks_and_the_number_of_threads_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let files = |run: &str, names: &[&str]| -> Vec<Vec<u8>> {
        names.iter().map(|name| bytes(at(&directory, run) + "/" + name)).collect()
    };
    tamt(&one_shot("magnitude", &at(&directory, "magnitude"))).success();
    for (method, names) in [
        ("tamt-mlm-kd", &["ticket.safetensors", "mlm_head.safetensors"][..]),
        ("imp", &["ticket.safetensors", "sparsity-0.4/ticket.safetensors"]),
    ] {
        for threads in [1, 2] {
            let line = training(method, &at(&directory, format!("{method}-{threads}")));
            tamt(&format!("{line} --threads {threads} --eval-every 10 --eval-corpus {}", corpus())).success();
        }
        assert_eq!(files(&format!("{method}-1"), names), files(&format!("{method}-2"), names), "{method}");
        let [one, two] = [1, 2].map(|threads| result_of(at(&directory, format!("{method}-{threads}"))));
        assert_eq!(one, two, "{method}");
        let trained = Tensors::read(at(&directory, format!("{method}-1/ticket.safetensors")));
        let start = Tensors::read(at(&directory, "magnitude/ticket.safetensors"));
        let moved = trained.names().iter().filter(|name| trained.bytes(name) != start.bytes(name)).count();
        assert!(moved > 0, "{method}: the masks are where they started");
    }
}

#[test]
fn seeds_decide_random_masks() {
    let directory = tempfile::tempdir().unwrap();
    let ticket = |run: &str, seed: u64| {
        tamt(&format!("{} --seed {seed}", one_shot("random", &at(&directory, run)))).success();
        bytes(at(&directory, run) + "/ticket.safetensors")
    };
    let first = ticket("a", 1);
    assert_eq!(first, ticket("b", 1));
    assert_ne!(first, ticket("c", 2));
}

#[test]
fn flags_that_the_method_has_no_use_for_are_named_and_not_recorded() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    tamt(&format!("{} --corpus no-such-file --max-steps 10 --kd-weight 2 --rewind none", one_shot("magnitude", &run)))
        .success()
        .stdout(contains("no effect with --method magnitude: --corpus, --max-steps, --kd-weight, --rewind\n"));
    let recorded = fs::read_to_string(format!("{run}/config.toml")).unwrap();
    assert!(!recorded.contains("no-such-file") && recorded.contains("max-steps = 0\n"), "{recorded}");

    // Flags that only others give an effect.
    for (i, (flags, unused)) in [
        ("--init-scale 0.1", "--init-scale"),
        ("--init-scale 0.1 --binarizer sign --threshold 0.1", "--threshold"),
        ("--threshold 0.1 --binarizer bernoulli", "--threshold"),
        ("--kd-relation-layers last-layer --eval-every 12", "--kd-relation-layers, --eval-every"),
        ("--kd-distance mse --kd-representation none --kd-attention", "--kd-distance"),
        ("--mlm-probability 0.3", "--mlm-probability"),
        ("--lr-schedule constant --lr-horizon-steps 5", "--lr-horizon-steps"),
        ("--clip none --max-grad-norm 1e-9", "--max-grad-norm"),
    ]
    .into_iter()
    .enumerate()
    {
        tamt(&format!("{} {flags}", training("tamt-kd", &at(&directory, format!("trained-{i}")))))
            .success()
            .stdout(contains(format!("no effect with --method tamt-kd: {unused}\n")));
    }
}

#[test]
fn first_scores_that_do_not_follow_the_start_mask_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let told = contains("these first scores are the same for every start mask");
    for (run, flags) in [("uniform", "--score-init uniform"), ("bernoulli", "--binarizer bernoulli")] {
        let line = format!("{} {flags}", training("tamt-kd", &at(&directory, run)));
        tamt(&line).success().stderr(told.clone());
    }
    let line = format!("{} --binarizer sign", training("tamt-kd", &at(&directory, "sign")));
    tamt(&line).success().stderr(told.not());
}

#[test]
fn global_scope_and_single_layers_prune_what_they_say() {
    let directory = tempfile::tempdir().unwrap();
    let global =
        object(&tamt(&format!("{} --scope global --json", one_shot("magnitude", &at(&directory, "g")))).success());
    // floor(5632 x 0.7) of all weights.
    assert_eq!(global["sparsity"], 3942.0 / 5632.0);
    let layer = object(&tamt(&format!("{} --layers 1 --json", one_shot("magnitude", &at(&directory, "l")))).success());
    // The run prunes layer 1 and the word embeddings; the rates count the dense layer 0 as well.
    assert_eq!(layer["encoder_sparsity"], (4 * 179 + 2 * 358) as f64 / 4096.0);
    let ticket = Tensors::read(at(&directory, "l/ticket.safetensors"));
    assert!(!ticket.names().contains(&format!("{QUERY}.bitmask")));
    tamt(&format!("{} --layers 0,2", one_shot("magnitude", &at(&directory, "bad"))))
        .code(2)
        .stderr(contains("--layers: the model has no layer 2; its layers are 0 to 1"));
}

#[test]
fn masks_start_from_the_ticket_that_was_given() {
    let directory = tempfile::tempdir().unwrap();
    tamt(&one_shot("random", &at(&directory, "random"))).success();
    let still = |run: &str, init: &str| {
        // The learning rate is too small to change a mask.
        let line = training("tamt-kd", &at(&directory, run)).replace("2e-3", "1e-30");
        tamt(&format!("{line} --init {init}")).success();
        Tensors::read(at(&directory, run) + "/ticket.safetensors").data
    };
    let random = Tensors::read(at(&directory, "random/ticket.safetensors")).data;
    assert_eq!(still("from-ticket", &at(&directory, "random")), random);
    assert_eq!(still("from-random", "random"), random);
    assert_ne!(still("from-magnitude", "magnitude"), random);
}

#[test]
fn a_denser_ticket_loses_its_smallest_weights_and_a_sparser_one_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ticket = |sparsity: &str| {
        let run = at(&directory, sparsity);
        tamt(&one_shot("magnitude", &run).replace("--sparsity 0.7", &format!("--sparsity {sparsity}"))).success();
        run
    };
    // The learning rate is too small to change a mask.
    let still = |run: &str| training("tamt-kd", &at(&directory, run)).replace("2e-3", "1e-30");
    tamt(&format!("{} --init {}", still("from-half"), ticket("0.5"))).success();
    let data = |run: String| Tensors::read(run + "/ticket.safetensors").data;
    assert_eq!(data(at(&directory, "from-half")), data(ticket("0.7")));
    let sparser = format!("{} --init {}", still("from-sparser"), ticket("0.8"));
    tamt(&sparser).failure().stderr(contains("drops more than 0.7 of "));
    // Of a ticket with the same sparsity in all, single matrices may be sparser.
    let global = at(&directory, "global");
    tamt(&(one_shot("magnitude", &global) + " --scope global")).success();
    let local = format!("{} --init {global}", still("from-global"));
    tamt(&local).failure().stderr(contains("drops more than 0.7 of "));
}

#[test]
fn scores_that_do_not_give_the_start_mask_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let line = training("tamt-kd", &at(&directory, "run"));
    for (flags, said) in [
        ("--threshold 0", "--threshold: 0 is not above 0"),
        ("--threshold -0.01", "--threshold: -0.01 is not above 0"),
        ("--threshold -0.01 --score-init double-uniform --binarizer sign", "--threshold: -0.01 is not above 0"),
        ("--score-init double-uniform --binarizer bernoulli", "--score-init: these scores are no probabilities"),
        ("--kd-representation none", "--kd-representation: with `none`, --kd-attention or --kd-relation must say"),
    ] {
        tamt(&format!("{line} {flags}")).code(2).stderr(contains(said));
    }
    assert!(!Path::new(&at(&directory, "run")).exists());
}

#[test]
fn iterative_pruning_takes_its_steps_by_the_round() {
    let directory = tempfile::tempdir().unwrap();
    let line = training("imp", &at(&directory, "run")).replace("--max-steps 24", "--steps-per-round 2");
    let result = object(&tamt(&format!("{line} --json")).success());
    // 0.1, 0.2 .. 0.7 are seven prunings with a round of training between each two.
    assert_eq!(result["steps"], 12);
    for share in ["0.1", "0.6", "0.7"] {
        assert!(Path::new(&at(&directory, format!("run/sparsity-{share}/ticket.safetensors"))).is_file(), "{share}");
    }
    tamt(&training("imp", &at(&directory, "tenth")).replace("0.7", "0.1"))
        .code(2)
        .stderr(contains("--sparsity: imp prunes"));
}

#[test]
fn the_paper_preset_sets_steps_and_a_horizon_of_two_epochs_and_flags_win() {
    let directory = tempfile::tempdir().unwrap();
    let run = at(&directory, "run");
    let line = training("tamt-mlm", &run).replace(" --rethreshold-every 5", "").replace(" --learning-rate 2e-3", "");
    tamt(&format!("{line} --preset paper")).success();
    let recorded: toml::Table = fs::read_to_string(format!("{run}/config.toml")).unwrap().parse().unwrap();
    assert_eq!(recorded["rethreshold-every"].as_integer(), Some(1000));
    let train = recorded["train"].as_table().unwrap();
    assert_eq!(train["max-steps"].as_integer(), Some(24));
    // 1656 tokens in windows of 14 are 118 blocks, in batches of 4 are 29 steps.
    assert_eq!(train["schedule"]["horizon"].as_integer(), Some(58));
}

#[test]
fn the_short_preset_ends_its_learning_rate_with_its_steps_at_any_sparsity_and_flags_win() {
    let directory = tempfile::tempdir().unwrap();
    let recorded = |name: &str, flags: &str| {
        let run = at(&directory, name);
        let line = format!("find --model {} --corpus {} --sparsity 0.45 --preset short", bert(), corpus());
        tamt(&format!("{line} --output-dir {run} {flags}")).success();
        let table: toml::Table = fs::read_to_string(format!("{run}/config.toml")).unwrap().parse().unwrap();
        table
    };
    let steps = |table: &toml::Table| {
        let train = &table["train"];
        (train["max-steps"].as_integer(), train["schedule"]["horizon"].as_integer())
    };
    let whole = recorded("whole", "--method tamt-kd --batch-size 1 --block-size 6");
    assert_eq!(steps(&whole), (Some(600), Some(600)));
    assert_eq!(whole["train"]["optimizer"]["learning-rate"].as_float(), Some(1e-3));
    assert_eq!(whole["rethreshold-every"].as_integer(), Some(20));
    assert_eq!((&whole["batch-size"], &whole["block-size"]), (&1.into(), &6.into()));

    let shorter = recorded("shorter", "--method tamt-mlm --max-steps 3 --rethreshold-every 2");
    assert_eq!(steps(&shorter), (Some(3), Some(3)));
    assert_eq!(shorter["train"]["optimizer"]["learning-rate"].as_float(), Some(2e-4));
    assert_eq!(shorter["rethreshold-every"].as_integer(), Some(2));
    // The model has room for 40 tokens.
    assert_eq!((&shorter["batch-size"], &shorter["block-size"]), (&16.into(), &40.into()));

    let horizon = recorded("horizon", "--method tamt-mlm --max-steps 3 --lr-horizon-steps 9 --learning-rate 3e-4");
    assert_eq!(steps(&horizon), (Some(3), Some(9)));
    assert_eq!(horizon["train"]["optimizer"]["learning-rate"].as_float(), Some(3e-4));

    let rounds = recorded("rounds", "--method imp --steps-per-round 2");
    assert_eq!(steps(&rounds).0, Some(8));
}

#[test]
fn a_preset_has_an_effect_on_methods_without_steps_where_they_are_evaluated() {
    let directory = tempfile::tempdir().unwrap();
    let line = |name: &str| format!("{} --preset short", one_shot("magnitude", &at(&directory, name)));
    tamt(&line("alone")).success().stdout(contains("no effect with --method magnitude: --preset\n"));
    tamt(&format!("{} --eval-corpus {}", line("evaluated"), corpus()))
        .success()
        .stdout(contains("in blocks of 40").and(contains("no effect").not()));
}

#[test]
fn roberta_is_found_tickets_of_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let line = training("tamt-mlm-kd", &at(&directory, "run")).replace(&bert(), &golden("roberta"));
    let result = object(&tamt(&format!("{line} --json")).success());
    assert!(result["sparsity"].as_f64().unwrap() > 0.69);
    let ticket = Tensors::read(at(&directory, "run/ticket.safetensors"));
    assert!(ticket.names().contains(&format!("{WORDS}.bitmask")), "{:?}", ticket.names());
}

/// RoBERTa has a padding row and unused position rows in front, and a head of its own.
#[test]
fn roberta_is_pruned_in_rounds_each_of_which_drops_more_of_what_the_last_one_kept() {
    let directory = tempfile::tempdir().unwrap();
    let to = |name: &str| at(&directory, name);
    let of_roberta = |line: String| line.replace(&bert(), &golden("roberta")).replace("0.7", "0.3");
    let line = of_roberta(training("imp", &to("run"))).replace("--max-steps 24", "--steps-per-round 4");
    let line = line.replace(" --rethreshold-every 5", "");
    let result = object(&tamt(&format!("{line} --json")).success());
    assert_eq!(result["steps"], 8);
    tamt(&of_roberta(one_shot("magnitude", &to("magnitude")))).success();
    tamt(&format!("{} --rewind none", line.replace(&to("run"), &to("on")))).success();
    let model = Tensors::read(golden("roberta") + "/model.safetensors");
    let ticket = |name: &str| Tensors::read(to(name) + "/ticket.safetensors");
    let levels = [("sparsity-0.1", 0.1), ("sparsity-0.2", 0.2), ("sparsity-0.3", 0.3)];
    let tickets = levels.map(|(folder, _)| ticket(&format!("run/{folder}")));
    for name in tickets[0].names() {
        let shape = model.shape(&masked("roberta", &name));
        let elements = || (0..shape[0]).flat_map(|row| (0..shape[1]).map(move |col| (row, col)));
        let mut before = vec![true; shape[0] * shape[1]];
        for (ticket, (folder, share)) in tickets.iter().zip(levels) {
            let kept: Vec<bool> = elements().map(|(r, c)| keeps(ticket.bytes(&name), shape[1], r, c)).collect();
            let dropped = kept.iter().filter(|kept| !**kept).count();
            assert_eq!(dropped, (kept.len() as f64 * share).floor() as usize, "{folder} {name}");
            assert!(kept.iter().zip(&before).all(|(now, before)| *before || !now), "{folder} {name}");
            before = kept;
        }
    }
    let data = |name: &str| ticket(name).data;
    assert_eq!(data("run"), data("run/sparsity-0.3"));
    assert_ne!(data("run"), data("magnitude"), "training decides what is dropped");
    assert_ne!(data("run"), data("on"), "rewinding has an effect");
}

#[test]
fn inspect_tells_rates_metadata_and_similarity() {
    let directory = tempfile::tempdir().unwrap();
    let (magnitude, random) = (at(&directory, "magnitude"), at(&directory, "random"));
    tamt(&one_shot("magnitude", &magnitude)).success();
    tamt(&one_shot("random", &random)).success();
    let line = format!("inspect {magnitude} --against {random} --model {}", bert());
    let one = object(&tamt(&format!("{line} --json")).success());
    let matrices = one["matrices"].as_array().unwrap();
    assert_eq!(matrices.len(), 13);
    let words = matrices.iter().find(|matrix| matrix["name"] == WORDS).unwrap();
    assert_eq!((&words["rows"], &words["cols"], &words["kept"]), (&96.into(), &16.into(), &461.into()));
    assert_eq!(words["sparsity"], 1075.0 / 1536.0);
    let mean = matrices.iter().map(|matrix| matrix["jaccard"].as_f64().unwrap()).sum::<f64>() / 13.0;
    assert!((one["jaccard"].as_f64().unwrap() - mean).abs() < 1e-12);
    // Two random sets of 30 % share 9 % of the weights out of 51 %.
    assert!((0.1..0.26).contains(&mean), "{mean}");
    assert_eq!((&one["metadata"]["method"], &one["metadata"]["sparsity"]), (&"magnitude".into(), &0.7.into()));
    assert_eq!(one["encoder_sparsity"], 2864.0 / 4096.0);
    tamt(&line)
        .success()
        .stdout(contains(format!("{WORDS}                96    16   461  0.699870")))
        .stdout(contains("similarity: 0."))
        .stderr(is_empty());

    let both = object(
        &tamt(&format!("inspect {magnitude} {random}/ticket.safetensors --against {magnitude} --json")).success(),
    );
    let tickets = both["tickets"].as_array().unwrap();
    assert_eq!((&tickets[0]["jaccard"], &tickets[1]["metadata"]["method"]), (&1.0.into(), &"random".into()));
}
