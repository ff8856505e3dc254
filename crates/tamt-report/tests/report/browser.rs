//! The page in headless Chromium, where it is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tamt_report::report::report;

use crate::study;

/// Flags under which Chromium shows a page without asking a network for anything of its own.
const FLAGS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];

/// Collects errors from the first line of the page on.
const WATCH: &str = "<script>window.seen = [];
addEventListener('error', (event) => seen.push(String(event.message)));
addEventListener('securitypolicyviolation', (event) => seen.push('policy: ' + event.blockedURI));
for (const name of ['error', 'warn']) console[name] = (...words) => seen.push(words.join(' '));</script>";

/// Measures the page, opens the runs of a cell, and tells the window around it.
const MEASURE: &str = "<script>addEventListener('load', () => setTimeout(() => {
  const box = (element) => element.getBoundingClientRect();
  const texts = [...document.querySelectorAll('.panel svg text')];
  const outside = texts.filter((text) => {
    const [inner, outer] = [box(text), box(text.ownerSVGElement)];
    return inner.left < outer.left - 1 || inner.right > outer.right + 1 || inner.top < outer.top - 1
      || inner.bottom > outer.bottom + 1;
  });
  const cell = document.querySelector('td.hit');
  cell.click();
  const panel = document.getElementById('panel');
  parent.postMessage(JSON.stringify({
    errors: seen, requests: performance.getEntriesByType('resource').map((entry) => entry.name), width: innerWidth,
    needed: document.documentElement.scrollWidth, smallest: Math.min(...texts.map((text) => box(text).height || 99)),
    texts: texts.length, outside: outside.map((text) => text.textContent), 
    dark: matchMedia('(prefers-color-scheme: dark)').matches,
    background: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(texts[0]).fill, open: panel.open,
    shown: panel.querySelectorAll('article').length, runs: cell.dataset.runs.split(' ').length,
    commands: panel.querySelectorAll('pre').length,
  }), '*');
  panel.close();
}, 100));</script>";

fn chromium() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let directories: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH")?).collect();
    names
        .iter()
        .flat_map(|name| directories.iter().map(move |directory| directory.join(name)))
        .find(|path| path.is_file())
}

/// What the page measures in a window of a width. A frame has any width; a window of Chromium is never below 500
/// pixels.
fn measure(program: &Path, page: &Path, width: u32, dark: bool) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let text = fs::read_to_string(page).unwrap();
    let text =
        text.replacen("<head>", &format!("<head>{WATCH}"), 1).replacen("</body>", &format!("{MEASURE}</body>"), 1);
    fs::write(directory.path().join("page.html"), text).unwrap();
    let outer = format!(
        "<!doctype html><body><iframe src=\"page.html\" style=\"width:{width}px;height:900px;border:0\"></iframe>\
         <pre id=\"told\"></pre><script>addEventListener('message', (event) => told.textContent = event.data)</script>"
    );
    let outer_path = directory.path().join("outer.html");
    fs::write(&outer_path, outer).unwrap();
    let output = Command::new(program)
        .args(FLAGS)
        .arg(format!("--user-data-dir={}", directory.path().join("profile").display()))
        .arg(format!("--blink-settings=preferredColorScheme={}", u8::from(!dark)))
        .args(["--window-size=1500,1000", "--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("file://{}", outer_path.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let told = dom.split_once("<pre id=\"told\">").and_then(|(_, rest)| Some(rest.split_once("</pre>")?.0.to_owned()));
    let told = told.filter(|told| !told.is_empty()).unwrap_or_else(|| panic!("the page tells nothing: {dom}"));
    let told = told.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&told).unwrap()
}

#[test]
fn the_page_is_sound_in_a_browser_on_a_phone_and_on_a_desk_in_light_and_in_dark() {
    let Some(program) = chromium() else {
        #[expect(clippy::print_stdout, reason = "a skip is printed")]
        {
            println!("skipped: there is no Chromium");
        }
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("study");
    study::whole(&root);
    // A directory of one's own keeps the report for a look.
    let output = std::env::var_os("TAMT_REPORT_OUT").map_or(directory.path().join("report"), PathBuf::from);
    let page = report(&[root], &output, &study::Reader).unwrap().written.page;
    let mut backgrounds = Vec::new();
    for (width, dark) in [(400, false), (400, true), (1400, false), (1400, true)] {
        let told = measure(&program, &page, width, dark);
        let of = |key: &str| &told[key];
        assert_eq!((of("errors"), of("requests")), (&Value::Array(vec![]), &Value::Array(vec![])), "{width} {dark}");
        assert_eq!((of("width"), of("dark")), (&width.into(), &dark.into()));
        // Tables scroll in their boxes, the page does not.
        assert!(of("needed").as_u64().unwrap() <= u64::from(width), "{width}: the page needs {}", of("needed"));
        assert!(of("texts").as_u64().unwrap() > 300, "{told}");
        assert_eq!(of("outside"), &Value::Array(vec![]), "{width}: texts that are cut off");
        assert!(of("smallest").as_f64().unwrap() >= 9.0, "{width}: a text is {} pixels high", of("smallest"));
        assert_eq!((of("open"), of("shown"), of("commands")), (&Value::Bool(true), of("runs"), of("runs")));
        backgrounds.push((of("background").clone(), of("ink").clone()));
    }
    assert_eq!((&backgrounds[0], &backgrounds[1]), (&backgrounds[2], &backgrounds[3]));
    assert!(backgrounds[0].0 != backgrounds[1].0 && backgrounds[0].1 != backgrounds[1].1, "{backgrounds:?}");
}
