//! `SQuAD`'s JSON.

use std::collections::HashSet;

use tamt_data::squad::{Dataset, WindowOptions, Windows};
use tamt_data::tasks::{Split, Task};

use crate::readers::files;
use crate::readers::text::invented_tokenizer;

/// Most tokens of a window.
const LONGEST: usize = 24;

/// Answers are where their ranges say; windows hold the questions and all tokens of the contexts.
pub(crate) fn squad(input: &[u8]) -> bool {
    let dir = files::one("dev-v2.0.json", input);
    let task = Task::by_name("squad2").expect("the task exists");
    let Ok(dataset) = Dataset::read(task, dir.path(), Split::Dev) else { return false };
    let mut ids = HashSet::new();
    for question in &dataset.questions {
        assert!(ids.insert(&question.id), "{} is there twice", question.id);
        let context = &dataset.contexts[question.context];
        for answer in &question.answers {
            let Some(span) = &answer.span else { continue };
            assert_eq!(context.get(span.clone()), Some(answer.text.trim()));
        }
        assert!(!question.answers.is_empty() || question.impossible);
    }
    let all: Vec<usize> = (0..dataset.questions.len()).collect();
    assert_eq!(dataset.select(&all).expect("the indices are those of questions").questions, dataset.questions);
    windows(&dataset);
    true
}

fn windows(dataset: &Dataset) {
    let options = WindowOptions { max_length: LONGEST, stride: 5, max_query: 8 };
    let windows = Windows::new(dataset, invented_tokenizer(), options).expect("the options fit");
    for question in 0..dataset.questions.len() {
        let mut reached = 0;
        for i in windows.of_question(question) {
            let window = *windows.window(i);
            assert!(window.question == question && window.first <= reached);
            reached = reached.max(window.first + window.tokens);
            let (mut ids, mut types) = (Vec::new(), Vec::new());
            windows.fill(i, &mut ids, &mut types);
            assert!(ids.len() <= LONGEST && ids.len() == types.len() && ids.len() == windows.ids_len(i));
            let (from, to) = window.answer;
            assert!(from <= to && to < ids.len());
        }
        let context = &dataset.contexts[dataset.questions[question].context];
        let tokens = invented_tokenizer().ids(context).expect("the tokenizer has an unknown token").len();
        assert_eq!(reached, tokens);
    }
}
