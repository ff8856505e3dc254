//! The flags of `find`.

use serde_json::Value;

use crate::compare::{Shows, differ, with};
use crate::run::outcome;
use crate::{flags, optimizer, run_flags};

const BASE: &str = "find --model {bert} --method tamt-mlm-kd --sparsity 0.7 --corpus {corpus} --output-dir run \
    --max-steps 4 --batch-size 4 --block-size 16 --learning-rate 2e-3 --logging-steps 1 --precision f32 --kernel dense";

/// Scores near the threshold, so that a step of the base line moves masks.
const NEAR: &str = "--threshold 0.001";

const TICKET: Shows = Shows::File("ticket.safetensors");

flags! {
    "--model" the_model_decides_the_loss => optimizer::other_first_loss(BASE, &["--model {roberta}"]);
    "--method" every_method_finds_another_ticket => methods();
    "--sparsity" the_ticket_has_the_sparsity_that_was_asked_for => sparsity();
    "--output-dir" the_run_is_in_the_directory_that_was_given => run_flags::output_dir(BASE, "ticket.safetensors");
    "--corpus" the_corpus_is_what_is_trained_on =>
        optimizer::other_first_loss(BASE, &["--corpus short.txt", "--corpus short.txt {corpus}"]);
    "--max-steps" a_run_takes_the_steps_that_were_asked_for => run_flags::max_steps(BASE);
    "--preset" a_preset_sets_batches_and_the_learning_rate => preset();
    "--scope" the_scope_decides_which_weights_are_ranked_together =>
        differ(&[], &with(BASE, "--method magnitude"), &["--scope global"], TICKET);
    "--layers" layers_that_are_not_named_keep_their_weights =>
        differ(&[], &with(BASE, "--method magnitude"), &["--layers 0", "--layers 1"], TICKET);
    "--allow-other-base" a_ticket_of_other_weights_is_accepted_on_request => allow_other_base();
    "--init" masks_start_as_was_asked_for => init();
    "--score-init" scores_start_as_was_asked_for => optimizer::other_losses(
        &with(BASE, "--threshold 0.002"),
        &["--score-init double-uniform", "--score-init uniform"],
    );
    "--init-scale" the_width_of_the_first_scores_decides_which_masks_move =>
        optimizer::other_losses(&with(BASE, "--binarizer sign"), &["--init-scale 0.002"]);
    "--binarizer" scores_become_bits_as_was_asked_for =>
        optimizer::other_losses(BASE, &["--binarizer sign", "--binarizer bernoulli"]);
    "--threshold" the_threshold_decides_which_masks_move => optimizer::same_first_loss(BASE, &[NEAR]);
    "--rethreshold-every" thresholds_are_set_again_as_often_as_asked_for =>
        optimizer::same_first_loss(&with(BASE, NEAR), &["--rethreshold-every 1", "--rethreshold-every 2"]);
    "--ticket-steps" tickets_are_written_after_the_steps_asked_for => ticket_steps();
    "--freeze-head" a_frozen_head_is_not_trained =>
        differ(&[], BASE, &["--freeze-head"], Shows::File("mlm_head.safetensors"));
    "--kd-weight" the_weight_of_distillation_multiplies_its_loss => kd_weight();
    "--kd-representation" hidden_states_are_compared_as_asked_for => kd(
        BASE,
        &["--kd-representation cls", "--kd-representation last-layer", "--kd-representation none --kd-attention"],
    );
    "--kd-distance" hidden_states_are_compared_by_the_distance_asked_for => kd(BASE, &["--kd-distance mse"]);
    "--kd-attention" attention_scores_are_compared_on_request => kd(BASE, &["--kd-attention"]);
    "--kd-relation" relations_are_compared_on_request =>
        kd(BASE, &["--kd-relation token", "--kd-relation sample"]);
    "--kd-relation-layers" relations_are_compared_in_the_layers_asked_for =>
        kd(&with(BASE, "--kd-relation token"), &["--kd-relation-layers last-layer"]);
    "--rewind" weights_stay_as_trained_on_request => differ(&[], &imp(), &["--rewind none"], TICKET);
    "--steps-per-round" each_round_takes_the_steps_asked_for => steps_per_round();
    "--eval-corpus" the_text_for_evaluation_is_what_is_evaluated_on => run_flags::eval_corpus(BASE);
    "--batch-size" a_step_takes_the_sequences_asked_for => run_flags::batch_size(BASE);
    "--block-size" a_sequence_has_the_tokens_asked_for => optimizer::other_first_loss(BASE, &["--block-size 12"]);
    "--mlm-probability" the_share_of_predicted_tokens_is_the_one_asked_for =>
        optimizer::other_first_loss(BASE, &["--mlm-probability 0.4"]);
    "--dropout" dropout_has_the_rate_asked_for => optimizer::other_first_loss(BASE, &["--dropout 0", "--dropout 0.4"]);
    "--seed" the_seed_decides_the_losses => optimizer::other_first_loss(BASE, &["--seed 7"]);
    "--eval-every" evaluations_are_as_frequent_as_asked_for =>
        run_flags::eval_every(&with(BASE, "--eval-corpus other.txt"), "eval_mlm_loss");
    "--save-every" checkpoints_are_at_the_steps_asked_for => run_flags::save_every(BASE);
    "--save-minutes" checkpoints_are_saved_by_the_clock => run_flags::save_minutes(BASE);
    "--logging-steps" the_log_has_the_lines_asked_for => run_flags::logging_steps(BASE);
    "--resume" a_finished_run_is_gone_on_with_on_request_only => run_flags::resume(BASE);
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
    "--kernel" masked_products_take_the_kernel_asked_for =>
        optimizer::other_gradients_after(&[], &with(BASE, "--precision bf16"), &["--kernel sparse"]);
    "--quiet" a_quiet_run_prints_its_result_only => run_flags::quiet(BASE, "tamt-mlm-kd at sparsity 0.7");
    "--config" flags_of_a_file_count_as_typed_ones => run_flags::config(BASE);
}

/// A line of iterative pruning to 0.3, of two rounds of two steps.
fn imp() -> String {
    with(&with(BASE, "--method imp"), "--sparsity 0.3")
}

fn methods() {
    let others = ["random", "magnitude", "imp", "tamt-mlm", "tamt-kd"].map(|name| format!("--method {name}"));
    // Iterative pruning to 0.7 has six rounds.
    differ(&[], &with(&with(BASE, NEAR), "--max-steps 6"), &others.each_ref().map(String::as_str), TICKET);
}

fn sparsity() {
    let line = with(BASE, "--method magnitude");
    let outcomes = differ(&[], &line, &["--sparsity 0.25"], Shows::Result("encoder_sparsity"));
    assert_eq!(outcomes[1].result("encoder_sparsity"), 0.25);
}

/// The preset's batches have 16 sequences, of as many tokens as the model holds.
fn preset() {
    let line = "find --model {bert} --method tamt-mlm --sparsity 0.7 --corpus {corpus} --output-dir run --max-steps 2 \
        --logging-steps 1 --precision f32 --kernel dense";
    let outcomes = differ(&[], line, &["--preset paper", "--preset short"], Shows::Log("learning_rate"));
    let rates = [1, 2].map(|i| outcomes[i].log("learning_rate"));
    // 1,656 tokens in windows of 38 are 43 blocks, two batches of 16 an epoch; two epochs are the horizon.
    assert_eq!((&rates[0][0], &rates[0][1]), (&5e-5.into(), &(5e-5 * 0.75).into()));
    // The horizon of a short run is its last step.
    assert_eq!((&rates[1][0], &rates[1][1]), (&2e-4.into(), &1e-4.into()));
}

fn ticket_steps() {
    let outcomes = differ(&[], &with(BASE, NEAR), &["--ticket-steps 0,2"], Shows::Names);
    let ticket = |step: u64| outcomes[1].files.get(&format!("run/step-{step}/ticket.safetensors"));
    assert_eq!([0, 1, 2, 3].map(|step| ticket(step).is_some()), [true, false, true, false]);
    assert_ne!(ticket(0), ticket(2));
}

fn allow_other_base() {
    let setup = "find --model other-bert --method random --sparsity 0.7 --output-dir ticket";
    let line = with(BASE, "--init ticket");
    let outcomes = differ(&[setup], &line, &["--allow-other-base"], Shows::Code);
    assert_eq!((outcomes[0].code, outcomes[1].code), (1, 0), "{}", outcomes[1].stderr);
}

fn init() {
    let setup = "find --model {bert} --method random --seed 3 --sparsity 0.7 --output-dir ticket";
    let outcomes = differ(&[setup], BASE, &["--init random", "--init ticket"], Shows::Log("loss"));
    let first: Vec<_> = outcomes.iter().map(|outcome| outcome.log("kd_loss")[0].clone()).collect();
    assert!(first[0] != first[1] && first[0] != first[2] && first[1] != first[2], "{first:?}");
}

/// The first distillation loss shows a setting of distillation.
#[track_caller]
fn kd(line: &str, changes: &[&str]) {
    let outcomes = differ(&[], line, changes, Shows::Log("kd_loss"));
    for (i, one) in outcomes.iter().enumerate() {
        for other in &outcomes[i + 1..] {
            assert_ne!(one.log("kd_loss")[0], other.log("kd_loss")[0]);
        }
        assert_eq!(one.log("mlm_loss")[0], outcomes[0].log("mlm_loss")[0]);
    }
}

fn kd_weight() {
    let outcomes = differ(&[], BASE, &["--kd-weight 2.5"], Shows::Log("loss"));
    for (outcome, weight) in outcomes.iter().zip([1.0, 2.5]) {
        let [loss, mlm, kd] = ["loss", "mlm_loss", "kd_loss"].map(|key| outcome.log(key)[0].as_f64().unwrap());
        assert!((loss - mlm - weight * kd).abs() < 1e-6, "{loss} is not {mlm} + {weight} x {kd}");
    }
}

fn steps_per_round() {
    let line = imp().replace("--max-steps 4 ", "");
    let outcomes = [2, 3].map(|steps| outcome(&[&format!("{line} --steps-per-round {steps}")], 0));
    // Two prunings before the last one are two rounds.
    assert_eq!(outcomes.each_ref().map(|outcome| outcome.result("steps")), [4, 6].map(Value::from));
}
