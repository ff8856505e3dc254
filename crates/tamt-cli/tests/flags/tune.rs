//! The flags of `tune`.

use serde_json::Value;

use crate::compare::{Shows, differ, with};
use crate::run::outcome;
use crate::{flags, optimizer, run_flags};

const BASE: &str = "tune --model {bert} --task cola --data cola --output-dir run --max-steps 4 --batch-size 8 \
    --learning-rate 2e-3 --logging-steps 1 --precision f32";

/// A task of three labels and a classifier that does not name them.
const OWN: &str = "tune --model classifier --task-file own.toml --data own --output-dir run --max-steps 2 \
    --batch-size 8 --logging-steps 1 --precision f32";

const SPANS: &str = "tune --model {bert} --task squad2 --data squad --output-dir run --max-steps 2 --batch-size 8 \
    --learning-rate 2e-3 --logging-steps 1 --precision f32";

const TICKET: &str = "find --model {bert} --method magnitude --sparsity 0.5 --output-dir ticket";

flags! {
    "--model" the_model_decides_the_loss => optimizer::other_first_loss(BASE, &["--model {roberta}"]);
    "--ticket" the_ticket_is_what_is_tuned => ticket();
    "--allow-other-base" a_ticket_of_other_weights_is_accepted_on_request => allow_other_base();
    "--task" the_task_decides_what_is_learnt =>
        differ(&[], SPANS, &["--task squad"], Shows::File("null_odds.json"));
    "--task-file" the_file_declares_the_task =>
        differ(&[], OWN, &["--task-file turned.toml"], Shows::File("config.json"));
    "--data" the_data_decide_the_loss => optimizer::other_first_loss(BASE, &["--data other-cola"]);
    "--labels" the_labels_have_the_order_asked_for => optimizer::other_first_loss(OWN, &["--labels good,bad,fair"]);
    "--max-length" texts_are_cut_where_asked_for => optimizer::other_first_loss(SPANS, &["--max-length 20"]);
    "--doc-stride" windows_start_where_asked_for =>
        optimizer::other_first_loss(&with(SPANS, "--max-length 16"), &["--doc-stride 4"]);
    "--max-query-length" questions_are_cut_where_asked_for =>
        optimizer::other_first_loss(&with(SPANS, "--data long-questions"), &["--max-query-length 1"]);
    "--n-best" there_are_as_many_candidates_as_asked_for => n_best();
    "--max-answer-length" answers_are_as_long_as_asked_for =>
        differ(&[], SPANS, &["--max-answer-length 1"], Shows::File("nbest_predictions.json"));
    "--null-threshold" the_threshold_decides_which_questions_have_no_answer => null_threshold();
    "--output-dir" the_run_is_in_the_directory_that_was_given => run_flags::output_dir(BASE, "model.safetensors");
    "--new-head" a_new_head_replaces_that_of_the_model_on_request => optimizer::other_first_loss(OWN, &["--new-head"]);
    "--dense-pooler" the_pooler_is_dense_on_request => dense_pooler();
    "--predict-test" the_test_split_is_predicted_on_request =>
        differ(&[], BASE, &["--predict-test"], Shows::File("test_predictions/CoLA.tsv"));
    "--epochs" a_run_takes_the_epochs_asked_for => epochs();
    "--max-steps" a_run_takes_the_steps_asked_for => run_flags::max_steps(BASE);
    "--train-examples" a_run_sees_the_examples_asked_for => train_examples();
    "--batch-size" a_step_takes_the_examples_asked_for => optimizer::other_first_loss(BASE, &["--batch-size 4"]);
    "--seed" the_seed_decides_the_losses => optimizer::other_first_loss(BASE, &["--seed 7"]);
    "--seeds" each_seed_has_a_run => seeds();
    "--dropout" dropout_has_the_rate_asked_for => optimizer::other_first_loss(BASE, &["--dropout 0", "--dropout 0.4"]);
    "--eval-every" evaluations_are_as_frequent_as_asked_for => run_flags::eval_every(BASE, "eval_loss");
    "--early-stopping" a_run_without_progress_stops_on_request => early_stopping();
    "--keep" the_written_model_is_the_one_asked_for =>
        differ(&[], &still(), &["--keep final", "--keep none"], Shows::File("model.safetensors"));
    "--save-every" checkpoints_are_at_the_steps_asked_for => run_flags::save_every(BASE);
    "--save-minutes" checkpoints_are_saved_by_the_clock => run_flags::save_minutes(BASE);
    "--logging-steps" the_log_has_the_lines_asked_for => run_flags::logging_steps(BASE);
    "--resume" a_finished_run_is_gone_on_with_on_request_only => run_flags::resume(BASE);
    "--teacher" the_teacher_has_a_part_in_the_loss => teacher();
    "--kd-temperature" the_temperature_divides_the_logits => taught("--kd-temperature 7");
    "--kd-logits-weight" the_outputs_of_the_teacher_have_the_weight_asked_for => taught("--kd-logits-weight 3");
    "--kd-hidden-weight" the_states_of_the_teacher_have_the_weight_asked_for => taught("--kd-hidden-weight 3");
    "--optimizer" the_optimiser_is_the_one_asked_for => optimizer::optimizer(BASE, "bert-adam");
    "--learning-rate" the_learning_rate_is_the_one_asked_for => optimizer::learning_rate(BASE);
    "--lr-schedule" the_learning_rate_takes_the_course_asked_for => optimizer::lr_schedule(BASE);
    "--lr-horizon-steps" the_learning_rate_falls_to_zero_where_asked_for => optimizer::lr_horizon_steps(BASE);
    "--warmup-steps" the_learning_rate_rises_as_long_as_asked_for => optimizer::warmup_steps(BASE);
    "--weight-decay" weights_decay_as_asked_for => optimizer::weight_decay(BASE);
    "--adam-epsilon" epsilon_is_the_one_asked_for => optimizer::adam_epsilon(BASE);
    "--clip" gradients_are_clipped_as_asked_for => optimizer::clip(BASE);
    "--max-grad-norm" gradients_have_the_norm_asked_for => optimizer::max_grad_norm(BASE);
    "--json" the_result_is_one_object_on_request => run_flags::json(BASE);
    "--threads" the_pool_has_the_threads_asked_for => run_flags::threads(BASE);
    "--precision" products_have_the_precision_asked_for => optimizer::other_first_loss(BASE, &["--precision bf16"]);
    "--kernel" masked_products_take_the_kernel_asked_for => kernel();
    "--quiet" a_quiet_run_prints_its_result_only => run_flags::quiet(BASE, "fine-tuning the dense model on cola");
    "--config" flags_of_a_file_count_as_typed_ones => run_flags::config(BASE);
}

/// A run whose weights change in the last bits only, so that the first evaluation stays the best one.
fn still() -> String {
    with(&with(BASE, "--learning-rate 1e-7"), "--eval-every 1")
}

fn ticket() {
    let outcomes = differ(&[TICKET], BASE, &["--ticket ticket"], Shows::Log("loss"));
    let query = "bert.encoder.layer.1.attention.self.query.weight";
    let zeros = |i: usize| outcomes[i].model().floats(query).iter().filter(|&&weight| weight == 0.0).count();
    assert_eq!((zeros(0), zeros(1)), (0, 16 * 16 / 2));
}

fn dense_pooler() {
    let setup = TICKET.replace("{bert}", "classifier");
    let outcomes = differ(&[&setup], &with(OWN, "--ticket ticket"), &["--dense-pooler"], Shows::Log("loss"));
    let zeros = |i: usize, name: &str| {
        let weights = outcomes[i].model().floats(name);
        weights.iter().filter(|&&weight| weight == 0.0).count()
    };
    let (pooler, query) = ("bert.pooler.dense.weight", "bert.encoder.layer.1.attention.self.query.weight");
    assert_eq!([zeros(0, pooler), zeros(1, pooler), zeros(1, query)], [16 * 16 / 2, 0, 16 * 16 / 2]);
    let rate = |i: usize, name: &str| outcomes[i].result(name).as_f64().unwrap();
    assert!(rate(1, "sparsity") < rate(0, "sparsity"), "the pooler counts among the kept weights");
    assert_eq!(rate(1, "encoder_sparsity"), rate(0, "encoder_sparsity"));
}

fn allow_other_base() {
    let setup = TICKET.replace("{bert}", "other-bert");
    let outcomes = differ(&[&setup], &with(BASE, "--ticket ticket"), &["--allow-other-base"], Shows::Code);
    assert_eq!((outcomes[0].code, outcomes[1].code), (1, 0), "{}", outcomes[1].stderr);
}

fn n_best() {
    let outcomes = differ(&[], SPANS, &["--n-best 2"], Shows::File("nbest_predictions.json"));
    let most = |i: usize| {
        let candidates = outcomes[i].json("nbest_predictions.json");
        candidates.as_object().unwrap().values().map(|of_one| of_one.as_array().unwrap().len()).max().unwrap()
    };
    // No answer is a candidate beside.
    assert!(most(0) > 3 && most(1) == 2 + 1, "{} and {}", most(0), most(1));
}

fn null_threshold() {
    let outcomes = [-1_000_000, 1_000_000].map(|threshold| {
        let answers = outcome(&[&with(SPANS, &format!("--null-threshold {threshold}"))], 0).json("predictions.json");
        answers.as_object().unwrap().values().filter(|answer| *answer == "").count()
    });
    assert_eq!(outcomes, [12, 0]);
}

/// 96 examples in batches of 8.
fn epochs() {
    let line = BASE.replace(" --max-steps 4", "");
    let steps = [0.25, 0.5].map(|epochs| outcome(&[&format!("{line} --epochs {epochs}")], 0).result("steps"));
    assert_eq!(steps, [3, 6].map(Value::from));
}

fn train_examples() {
    let outcomes = differ(&[], &with(BASE, "--batch-size 96"), &["--train-examples 9"], Shows::Log("loss"));
    let seen = [0, 1].map(|i| outcomes[i].state("num_input_tokens_seen"));
    assert!(seen[1] * 5 < seen[0], "{seen:?}");
}

fn seeds() {
    let outcomes = differ(&[], BASE, &["--seeds 3,7"], Shows::Names);
    let alone = outcome(&[&with(BASE, "--seed 7")], 0);
    assert_eq!(outcomes[1].files["run/seed-7/model.safetensors"], alone.files["run/model.safetensors"]);
    assert!(outcomes[1].files.contains_key("run/seed-3/model.safetensors"));
}

fn early_stopping() {
    let outcomes = differ(&[], &still(), &["--early-stopping 1", "--early-stopping 2"], Shows::Result("steps"));
    assert_eq!([0, 1, 2].map(|i| outcomes[i].result("steps")), [4, 2, 3].map(Value::from));
}

fn taught(change: &str) {
    let setup = with(BASE, "--output-dir teacher");
    optimizer::other_first_loss_after(&[&setup], &with(BASE, "--teacher teacher"), &[change]);
}

fn teacher() {
    let setup = with(BASE, "--output-dir teacher");
    optimizer::other_first_loss_after(&[&setup], BASE, &["--teacher teacher"]);
}

fn kernel() {
    let line = with(&with(BASE, "--ticket ticket"), "--precision bf16");
    let line = with(&line, "--kernel dense");
    optimizer::other_gradients_after(&[TICKET], &line, &["--kernel sparse"]);
    differ(&[], BASE, &["--kernel sparse"], Shows::Said("no effect without masks: --kernel\n"));
}
