//! All runs as one CSV file, a line each, for other programs and for another report. The file has no path of the machine,
//! so that it can be published beside a paper.

use crate::row::Row;
use crate::run::Run;
use crate::variants::variants;

/// The runs as CSV: results with all digits, scores in percent points.
pub(super) fn csv(runs: &[Run]) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for (run, settings) in runs.iter().zip(variants(runs)) {
        // Writing to memory does not fail.
        let _ = writer.serialize(Row::new(run, settings));
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}
