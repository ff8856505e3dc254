//! The flags of `pretrain`.

use crate::common::{Tensors, bert};
use crate::compare::{Shows, differ, with};
use crate::{flags, optimizer, run_flags};

const BASE: &str = "pretrain --model {bert} --corpus {corpus} --output-dir run --max-steps 4 --batch-size 4 \
    --block-size 16 --learning-rate 2e-3 --logging-steps 1 --precision f32";

const NEW: &str = "pretrain --new two-layers.json --tokenizer {bert} --corpus {corpus} --output-dir run --max-steps 2 \
    --batch-size 4 --block-size 16 --logging-steps 1 --precision f32";

flags! {
    "--corpus" the_corpus_is_what_is_trained_on =>
        optimizer::other_first_loss(BASE, &["--corpus short.txt", "--corpus short.txt {corpus}"]);
    "--output-dir" the_run_is_in_the_directory_that_was_given => run_flags::output_dir(BASE, "model.safetensors");
    "--model" the_model_decides_the_loss => optimizer::other_first_loss(BASE, &["--model {roberta}"]);
    "--train" only_the_weights_that_were_named_are_trained => train();
    "--new" a_new_model_has_the_shape_that_was_given => new();
    "--tokenizer" the_tokenizer_decides_the_tokens => optimizer::other_first_loss(NEW, &["--tokenizer {roberta}"]);
    "--max-steps" a_run_takes_the_steps_that_were_asked_for => run_flags::max_steps(BASE);
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
    "--kernel" a_kernel_for_masks_is_said_to_have_no_effect =>
        differ(&[], BASE, &["--kernel sparse"], Shows::Said("no effect without masks: --kernel\n"));
    "--quiet" a_quiet_run_prints_its_result_only => run_flags::quiet(BASE, "pre-training all weights");
    "--config" flags_of_a_file_count_as_typed_ones => run_flags::config(BASE);
}

fn train() {
    let outcomes = differ(&[], BASE, &["--train head"], Shows::File("model.safetensors"));
    let given = Tensors::read(bert() + "/model.safetensors");
    let moved = |i: usize| -> Vec<String> {
        let trained = outcomes[i].model();
        given.names().into_iter().filter(|name| given.bytes(name) != trained.bytes(name)).collect()
    };
    assert!(moved(0).iter().any(|name| name.contains("encoder.layer.0")), "{:?}", moved(0));
    assert!(!moved(1).is_empty() && moved(1).iter().all(|name| name.starts_with("cls.")), "{:?}", moved(1));
}

fn new() {
    let outcomes = differ(&[], NEW, &["--new one-layer.json"], Shows::File("config.json"));
    let layers = |i: usize| outcomes[i].model().names().iter().filter(|name| name.ends_with("query.weight")).count();
    assert_eq!((layers(0), layers(1)), (2, 1));
}
