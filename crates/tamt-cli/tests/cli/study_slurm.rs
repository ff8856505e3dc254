//! Studies as array jobs of Slurm: the script, its submission, and the whole of it under a real Slurm.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{at, has_result, long_enough, reaches, signal, split, tamt, tamt_command};
use crate::study_plans::{names, numbers, plan, record, run, runs, tasks};

/// The plan of one search.
fn search(steps: u64, save_every: u64) -> String {
    format!(
        "[tickets]\nmethods = ['tamt-mlm']\nsparsities = [0.5]\nseeds = [1]\nmax-steps = {steps}\n\
         save-every = {save_every}\nbatch-size = 2\nblock-size = 12\n"
    )
}

/// Runs the binary with the words of `line`, under a `PATH` that begins with `programs`.
fn with_programs(line: &str, programs: &Path) -> Output {
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    tamt_command().args(split(line)).env("PATH", path).output().unwrap()
}

/// Writes a program of the shell and returns its directory.
fn program(directory: &Path, name: &str, text: &str) -> PathBuf {
    let programs = directory.join("programs");
    fs::create_dir_all(&programs).unwrap();
    let path = programs.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    programs
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn object(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn without_sbatch_nothing_is_written_and_the_message_says_what_else_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let (plan, out) = (plan(&directory, "plan.toml", &search(4, 2)), at(&directory, "out"));
    let line = format!("study {plan} --output-dir {out} --slurm");
    let output = tamt_command().args(split(&line)).env("PATH", directory.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("there is no `sbatch` on this machine") && told.contains("--jobs N"), "{told}");
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_dry_run_prints_the_script_and_writes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&directory, "my plan.toml", &search(4, 2));
    let out = at(&directory, "it's out");
    let call = |flags: &[&str]| {
        let mut command = tamt_command();
        let output = command.args(["study", &plan, "--output-dir", &out, "--dry-run"]).args(flags).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    let script = call(&["--slurm", "--array=0-7%4 --cpus-per-task=4"]);
    let directives: Vec<&str> = script.lines().filter_map(|line| line.strip_prefix("#SBATCH ")).collect();
    let logs = format!("--output=\"{out}/slurm/%A_%a.log\"");
    let expected = [
        "--job-name=tamt-my-plan",
        "--array=0-0",
        "--requeue --open-mode=append --signal=B:USR1@120",
        &logs,
        "--array=0-7%4 --cpus-per-task=4",
    ];
    assert_eq!(directives, expected);
    let quoted = out.replace('\'', r"'\''");
    let worker = script.lines().find(|line| line.trim_start().starts_with("exec")).unwrap();
    let threads = "--worker --threads \"${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}\"";
    assert!(worker.ends_with(&format!("study '{plan}' --output-dir '{quoted}' {threads}")), "{worker}");
    assert!(!Path::new(&out).exists());

    let store = at(&directory, "store");
    let script = call(&["--slurm", "--store", &store, "--threads", "3"]);
    assert!(script.contains(&format!("--store '{store}' --worker --threads 3\n")), "{script}");
    let checked = Command::new("bash").args(["-n", "-c", &script]).output().unwrap();
    assert!(checked.status.success(), "{}", text(&checked.stderr));
}

#[test]
fn what_is_open_is_submitted_and_the_words_of_sbatch_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let text_of = format!("{}[losses]\n", search(4, 2).replace("[1]", "[1, 2]"));
    let (plan, out) = (plan(&directory, "plan.toml", &text_of), at(&directory, "out"));
    let given = at(&directory, "given");
    let stub = format!("[ \"$1\" = --version ] && exit\necho \"$@\" > {given}\necho '17;cluster'\necho note >&2");
    let programs = program(directory.path(), "sbatch", &stub);
    let line = format!("study {plan} --output-dir {out} --slurm --json");
    let output = with_programs(&line, &programs);
    let script = format!("{out}/slurm.sh");
    let logs = format!("{out}/slurm");
    assert_eq!(object(&output), json!({"job": "17", "script": script, "logs": logs, "runs": 5, "open": 5}));
    assert!(text(&output.stderr).contains("note"));
    assert_eq!(fs::read_to_string(&given).unwrap(), format!("--parsable {script}\n"));
    assert!(fs::read_to_string(&script).unwrap().contains("#SBATCH --array=0-4\n") && Path::new(&logs).is_dir());

    // What is done is no task, and when all is done nothing is submitted.
    tamt(&format!("study {plan} --output-dir {out} --quiet")).success();
    fs::remove_file(&given).unwrap();
    assert_eq!(object(&with_programs(&line, &programs))["done"], 5);
    assert!(!Path::new(&given).exists());

    program(directory.path(), "sbatch", "[ \"$1\" = --version ] && exit\necho 'invalid partition' >&2; exit 1");
    let output = with_programs(&line.replace("/out", "/other"), &programs);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("invalid partition"), "{}", text(&output.stderr));
}

/// The task of the script that `study` would submit, as Slurm starts it, with these programs.
fn task(study: &str, programs: &Path) -> Command {
    let dry = with_programs(&format!("{study} --slurm --dry-run"), programs);
    let script = programs.join("script.sh");
    fs::write(&script, &dry.stdout).unwrap();
    let mut command = Command::new("bash");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    command.arg(&script).envs([("PATH", path.as_str()), ("SLURM_JOB_ID", "23"), ("SLURM_CPUS_PER_TASK", "1")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn ahead_of_the_time_limit_a_task_saves_a_checkpoint_and_returns_to_the_queue() {
    let directory = tempfile::tempdir().unwrap();
    long_enough(1000, |steps| {
        let plan = plan(&directory, "plan.toml", &search(steps, 50));
        let [whole, stopped, requeued] =
            ["whole", "stopped", "requeued"].map(|name| at(&directory, format!("{name}-{steps}")));
        tamt(&format!("study {plan} --output-dir {whole} --quiet")).success();
        let name = run(&whole, "tickets/").file_name().unwrap().to_str().unwrap().to_owned();
        let programs = program(directory.path(), "scontrol", &format!("echo \"$@\" >> {requeued}"));
        let task = || task(&format!("study {plan} --output-dir {stopped}"), &programs).spawn().unwrap();
        let (mut child, search) = (task(), Path::new(&stopped).join("tickets").join(&name));
        if !reaches(&search, 100, &mut child) {
            return None;
        }
        signal(&child, "USR1");
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        if has_result(&search) {
            return None;
        }
        assert_eq!(fs::read_to_string(&requeued).unwrap(), "requeue 23\n");
        assert!(!search.join("study-run.json").exists(), "it was to stop in the middle");

        // The task begins again, and ends.
        let output = task().wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("going on with tickets/"), "{}", text(&output.stderr));
        assert_eq!(fs::read_to_string(&requeued).unwrap(), "requeue 23\n");
        assert_eq!(numbers(&stopped), numbers(&whole));
        assert_eq!(record(&search)["attempts"], 2);
        Some(())
    });
}

/// A Slurm of one controller and one node on this machine, until dropped.
struct Slurm {
    directory: tempfile::TempDir,
}

impl Slurm {
    fn start() -> Self {
        let slurm = Self { directory: tempfile::tempdir().unwrap() };
        let output = slurm.script("start.sh");
        assert!(output.status.success(), "{}", text(&output.stderr));
        slurm
    }

    fn script(&self, name: &str) -> Output {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slurm").join(name);
        let path = path.to_str().unwrap().to_owned();
        // The daemons live on: they must not hold the pipes.
        let log = fs::File::create(self.directory.path().join("script.log")).unwrap();
        let status = Command::new(&path).arg(self.directory.path()).stdout(Stdio::null()).stderr(log).status().unwrap();
        let stderr = fs::read(self.directory.path().join("script.log")).unwrap();
        Output { status, stdout: Vec::new(), stderr }
    }

    /// Runs a program of Slurm, or `tamt`.
    fn output(&self, program: impl AsRef<std::ffi::OsStr>, words: &[&str]) -> Output {
        let conf = self.directory.path().join("slurm.conf");
        Command::new(program.as_ref()).args(words).env("SLURM_CONF", conf).output().unwrap()
    }

    /// What a program of Slurm, or `tamt`, prints.
    fn call(&self, program: impl AsRef<std::ffi::OsStr>, words: &[&str]) -> String {
        let output = self.output(program, words);
        assert!(output.status.success(), "{words:?}: {}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    }

    fn submit(&self, plan: &str, out: &str, flags: &str) -> String {
        let tamt = assert_cmd::cargo::cargo_bin("tamt");
        let answer = self.call(tamt, &["study", plan, "--output-dir", out, "--slurm", flags, "--json"]);
        serde_json::from_str::<Value>(&answer).unwrap()["job"].as_str().unwrap().to_owned()
    }

    /// A field of `scontrol show job`.
    fn field(&self, task: &str, name: &str) -> String {
        let shown = self.call("scontrol", &["show", "job", task]);
        let value = shown.split_whitespace().find_map(|word| word.strip_prefix(&format!("{name}=")));
        value.unwrap_or_else(|| panic!("no {name} in {shown}")).to_owned()
    }

    fn state(&self, task: &str) -> String {
        self.field(task, "JobState")
    }

    fn wait(&self, what: &str, out: &str, mut is_so: impl FnMut() -> bool) {
        let started = Instant::now();
        while !is_so() {
            if started.elapsed() > Duration::from_secs(600) {
                let logs: Vec<String> = names(format!("{out}/slurm"))
                    .iter()
                    .map(|name| fs::read_to_string(format!("{out}/slurm/{name}")).unwrap())
                    .collect();
                panic!("{what} does not come: {}\n{}", self.call("squeue", &[]), logs.join("\n"));
            }
            sleep(Duration::from_millis(100));
        }
    }

    fn wait_for_state(&self, task: &str, state: &str, out: &str) {
        self.wait(&format!("{state} of {task}"), out, || self.state(task) == state);
    }
}

impl Drop for Slurm {
    fn drop(&mut self) {
        self.script("stop.sh");
    }
}

/// Checkpoints of searches and fine-tunings that are at work.
fn checkpoints(out: &str) -> usize {
    let inside = |run: &String| names(Path::new(out).join(run)).iter().filter(|n| n.starts_with("checkpoint-")).count();
    runs(out).iter().map(inside).sum()
}

/// The process of the worker that is a task of an array job, while there is one.
fn worker_of_task(out: &str, task: &str) -> Option<String> {
    let directory = Path::new(out).join(".study/workers");
    let pids = names(&directory).into_iter().filter(|name| name.ends_with(".json")).filter_map(|name| {
        // A worker that leaves takes its sign along.
        let sign: Value = serde_json::from_slice(&fs::read(directory.join(name)).ok()?).unwrap();
        Some(sign["pid"].to_string())
    });
    let variable = format!("SLURM_ARRAY_TASK_ID={task}");
    let is_of_task = |pid: &String| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|word| word == variable.as_bytes())
    };
    pids.into_iter().find(is_of_task)
}

/// Kills the worker of the first of two tasks, and returns both tasks to the queue while they are at work. False if one of
/// them ended ahead of that.
fn are_disturbed(slurm: &Slurm, out: &str, [first, second]: [&str; 2]) -> bool {
    let mut worker = None;
    slurm.wait("a checkpoint of two workers", out, || {
        worker = worker_of_task(out, "0");
        worker.is_some() && checkpoints(out) > 0 || [first, second].iter().any(|task| slurm.state(task) == "COMPLETED")
    });
    // As the machine does without memory: the worker has no chance to leave.
    let kill = |pid: String| Command::new("kill").args(["-KILL", &pid]).status().unwrap().success();
    if !worker.is_some_and(kill) {
        return false;
    }
    slurm.wait("the end of the first task", out, || ["FAILED", "COMPLETED"].contains(&slurm.state(first).as_str()));
    if slurm.state(first) == "COMPLETED" {
        return false;
    }
    slurm.call("scontrol", &["requeue", first]);
    let is_at_work = || slurm.state(second) == "RUNNING";
    slurm.wait("a checkpoint", out, || checkpoints(out) > 0 || !is_at_work());
    // Slurm ends a running task by SIGTERM, and starts it again.
    is_at_work() && slurm.output("scontrol", &["requeue", second]).status.success()
}

/// As root: `apt-get install slurm-wlm munge`, then `cargo test --workspace --test cli slurm -- --ignored`.
#[test]
#[ignore = "needs Slurm: apt-get install slurm-wlm munge; cargo test --workspace --test cli slurm -- --ignored"]
fn under_slurm_killed_and_requeued_tasks_change_no_number() {
    let directory = tempfile::tempdir().unwrap();
    tasks(directory.path());
    let slurm = Slurm::start();
    let (plan, out) = long_enough(2000, |steps| {
        let text = format!(
            "[tickets]\nmethods = ['random', 'magnitude', 'tamt-mlm']\nsparsities = [0.5, 0.7]\nseeds = [1, 2]\n\
             max-steps = {steps}\nsave-every = 100\nbatch-size = 2\nblock-size = 12\nlearning-rate = 1e-3\n[losses]\n\
             [tasks]\nnames = ['cola']\nseeds = [1]\nmax-steps = 300\nsave-every = 20\neval-every = 50\nbatch-size = 4\n\
             max-length = 16\nlearning-rate = 2e-3\n[tasks.cola]\ndata = 'one'\n"
        );
        let (plan, out) = (plan(&directory, "plan.toml", &text), at(&directory, format!("by slurm {steps}")));
        let job = slurm.submit(&plan, &out, "--array=0-1 --cpus-per-task=1");
        let tasks = [format!("{job}_0"), format!("{job}_1")];
        if !are_disturbed(&slurm, &out, tasks.each_ref().map(String::as_str)) {
            // A task that has ended cannot be cancelled.
            slurm.output("scancel", &[&job]);
            return None;
        }
        for task in &tasks {
            slurm.wait_for_state(task, "COMPLETED", &out);
            assert_eq!(slurm.field(task, "Restarts"), "1");
        }
        Some((plan, out))
    });
    let whole = at(&directory, "whole");
    tamt(&format!("study {plan} --output-dir {whole} --quiet")).success();
    assert_eq!(numbers(&out), numbers(&whole));
}

#[test]
#[ignore = "needs Slurm: apt-get install slurm-wlm munge; cargo test --workspace --test cli slurm -- --ignored"]
fn under_slurm_a_task_returns_to_the_queue_ahead_of_its_time_limit() {
    let directory = tempfile::tempdir().unwrap();
    let whole = at(&directory, "whole");
    let slurm = Slurm::start();
    // A minute is the shortest limit. Slurm looks for tasks near their limit twice a minute, so the first signal comes
    // within 15 to 45 seconds. A search that ends sooner meets no limit, and a longer one takes its place.
    for steps in [60_000, 120_000, 240_000, 480_000, 960_000] {
        let plan = plan(&directory, "plan.toml", &search(steps, 5000));
        let out = at(&directory, steps.to_string());
        let job = slurm.submit(&plan, &out, "--array=0 --time=1 --signal=B:USR1@45");
        let task = format!("{job}_0");
        slurm.wait_for_state(&task, "COMPLETED", &out);
        let restarts: u64 = slurm.field(&task, "Restarts").parse().unwrap();
        if restarts > 0 {
            let log = fs::read_to_string(format!("{out}/slurm/{job}_0.log")).unwrap();
            assert_eq!(log.matches("returns to the queue").count() as u64, restarts, "{log}");
            assert!(log.contains("going on with tickets/"), "{log}");
            tamt(&format!("study {plan} --output-dir {whole} --quiet")).success();
            assert_eq!(numbers(&out), numbers(&whole));
            return;
        }
    }
    panic!("no search met its limit");
}
