//! Every number of a page is found again in the results of its runs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tamt_report::report::report;

use crate::study;

/// A number of the page: the attributes of its cell, and the text.
struct Shown {
    attributes: BTreeMap<String, String>,
    value: String,
    deviation: Option<String>,
    difference: Option<String>,
}

impl Shown {
    fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// The cells with numbers, read from the markup.
fn numbers(page: &str) -> Vec<Shown> {
    let mut found = Vec::new();
    for cell in page.split("<td class=\"num hit").skip(1) {
        let cell = &cell[..cell.find("</td>").unwrap()];
        let (tag, content) = cell.split_once('>').unwrap();
        let attributes = tag.split("data-").skip(1).map(|attribute| {
            let (name, rest) = attribute.split_once("=\"").unwrap();
            (name.to_owned(), rest[..rest.find('"').unwrap()].to_owned())
        });
        let span = |class: &str| {
            let rest = content.split_once(&format!("<span class=\"{class}\">"))?.1;
            Some(rest[..rest.find("</span>").unwrap()].to_owned())
        };
        let (value, deviation, difference) = (span("value").unwrap(), span("sd"), span("diff"));
        found.push(Shown { attributes: attributes.collect(), value, deviation, difference });
    }
    found
}

/// The results of the runs of a page, in its order.
fn results(page: &str) -> Vec<Value> {
    let start = page.find("type=\"application/json\">").unwrap() + "type=\"application/json\">".len();
    let json = &page[start..start + page[start..].find("</script>").unwrap()];
    let cards: Vec<Value> = serde_json::from_str(json).unwrap();
    let read = |card: &Value| {
        let directory = Path::new(card["directory"].as_str().unwrap());
        serde_json::from_str(&fs::read_to_string(directory.join("eval_results.json")).unwrap()).unwrap()
    };
    cards.iter().map(read).collect()
}

/// The number that a cell takes from a result. SQuAD prints percent, other tasks shares.
fn of_result(result: &Value, key: &str) -> f64 {
    if key != "score" {
        return result[key].as_f64().unwrap();
    }
    let metric = result["primary_metric"].as_str().unwrap();
    let scale = if result.get("exact_match").is_some() { 1.0 } else { 100.0 };
    scale * result[format!("best_{metric}")].as_f64().unwrap()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The task of a result: tasks differ in their metrics, and in the directory's name.
fn mean_of_tasks(results: &[(String, f64)]) -> f64 {
    let mut tasks: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (task, value) in results {
        tasks.entry(task).or_default().push(*value);
    }
    mean(&tasks.values().map(|values| mean(values)).collect::<Vec<_>>())
}

/// A text as a number: a true minus, commas between thousands.
fn parsed(text: &str) -> f64 {
    text.replace('\u{2212}', "-").replace([',', '+', '±', '*'], "").parse().unwrap_or_else(|_| panic!("{text}"))
}

#[test]
fn every_score_and_loss_of_the_page_follows_from_the_results_of_its_runs() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("study");
    study::whole(&root);
    let written = report(&[root], &directory.path().join("report"), &study::Reader).unwrap().written;
    let page = fs::read_to_string(written.page).unwrap();
    let results = results(&page);
    let mut checked = BTreeMap::new();
    for shown in numbers(&page) {
        let runs: Vec<usize> = shown.attribute("runs").split(' ').map(|run| run.parse().unwrap()).collect();
        let (statistic, key) = (shown.attribute("stat"), shown.attribute("key"));
        *checked.entry(statistic.to_owned()).or_insert(0) += 1;
        assert!(!runs.is_empty(), "{}", shown.value);
        let exact: f64 = shown.attribute("value").parse().unwrap();
        let values: Vec<f64> = match statistic {
            "mean" | "mean-of-tasks" => runs.iter().map(|&run| of_result(&results[run], key)).collect(),
            // `chosen.rs` has the differences, tests and sums; their runs must exist.
            _ => {
                assert!(runs.iter().all(|&run| run < results.len()));
                continue;
            }
        };
        let expected = if statistic == "mean" {
            mean(&values)
        } else {
            let task = |run: usize| {
                format!("{} {}", results[run]["primary_metric"], results[run].get("exact_match").is_some())
            };
            mean_of_tasks(&runs.iter().zip(&values).map(|(&run, value)| (task(run), *value)).collect::<Vec<_>>())
        };
        assert!((expected - exact).abs() < 1e-9, "{statistic} {key}: {expected} in the results, {exact} in the page");
        let decimals = shown.value.split_once('.').map_or(0, |(_, rest)| rest.len());
        let unit = 10_f64.powi(-(decimals as i32));
        assert!((parsed(&shown.value) - exact).abs() <= 0.5 * unit + 1e-9, "{} is shown for {exact}", shown.value);
        if let (Some(deviation), "mean") = (&shown.deviation, statistic) {
            let squares: f64 = values.iter().map(|value| (value - expected).powi(2)).sum();
            let expected = (squares / (values.len() as f64 - 1.0)).sqrt();
            assert!((parsed(deviation) - expected).abs() <= 0.5 * unit + 1e-9, "{deviation} is shown for {expected}");
        }
    }
    assert!(checked["mean"] > 150 && checked["mean-of-tasks"] > 30 && checked["derived"] > 100, "{checked:?}");
}

#[test]
fn differences_are_those_to_the_dense_model_of_the_same_table() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("study");
    study::whole(&root);
    let written = report(&[root], &directory.path().join("report"), &study::Reader).unwrap().written;
    let page = fs::read_to_string(written.page).unwrap();
    let (mut checked, mut tables) = (0, 0);
    for table in page.split("<table id=\"table-scores-").skip(1) {
        tables += 1;
        let rows: Vec<&str> = table[..table.find("</table>").unwrap()].split("<tr>").skip(2).collect();
        assert!(rows[0].contains("<th scope=\"row\">dense</th>"), "{}", rows[0]);
        let dense = numbers(rows[0]);
        for row in &rows[1..] {
            for (shown, reference) in numbers(row).iter().zip(&dense) {
                let value = |shown: &Shown| shown.attribute("value").parse::<f64>().unwrap();
                let difference = parsed(shown.difference.as_ref().unwrap());
                assert!((value(shown) - value(reference) - difference).abs() <= 0.05 + 1e-9, "{difference}");
                checked += 1;
            }
        }
    }
    assert_eq!((tables, checked), (3, 3 * 6 * 6));
}
