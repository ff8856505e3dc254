//! Settings of the access to the hub, from the variables that Python's `huggingface_hub` reads.

use std::path::{PathBuf, is_separator};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{env, fs};

use crate::hub::client::Patience;

/// Whether [`hide_progress`] was called.
static IS_QUIET: AtomicBool = AtomicBool::new(false);

/// Lets the later downloads of this process draw no progress bars, as `HF_HUB_DISABLE_PROGRESS_BARS` does.
pub fn hide_progress() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// Settings of the access to the hub.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The hub's address, without a slash at the end.
    pub endpoint: String,
    /// The cache directory, in the layout of Python's `huggingface_hub`.
    pub cache: PathBuf,
    /// The secret token for private and gated models.
    pub token: Option<String>,
    /// Whether network access is forbidden.
    pub offline: bool,
    /// Whether to draw progress bars on stderr if stderr is a terminal.
    pub progress: bool,
    /// How long requests wait, and how often they are repeated.
    pub patience: Patience,
}

impl Hub {
    /// The settings of the environment: the endpoint from `HF_ENDPOINT`; the cache from `HF_HUB_CACHE`, else `hub` in
    /// `HF_HOME`, else in `~/.cache/huggingface`; the token from `HF_TOKEN`, else the saved token of `hf auth login`; offline
    /// use from `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`; progress bars from `HF_HUB_DISABLE_PROGRESS_BARS`; the seconds
    /// of a time-out from `HF_HUB_DOWNLOAD_TIMEOUT`. In the directories of the cache, `~` at the start is the home
    /// directory, and `$NAME` and `${NAME}` are variables.
    pub fn from_env() -> Self {
        Self::from_vars(|name| env::var(name).ok())
    }

    fn from_vars(raw: impl Fn(&str) -> Option<String>) -> Self {
        let var = |name: &str| raw(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let directory = |name: &str| var(name).map(|path| expanded(&path, &raw));
        let is_set =
            |name: &str| var(name).is_some_and(|v| ["1", "on", "yes", "true"].contains(&v.to_lowercase().as_str()));
        let home = directory("HF_HOME").unwrap_or_else(|| {
            let caches = directory("XDG_CACHE_HOME");
            caches.unwrap_or_else(|| env::home_dir().unwrap_or_default().join(".cache")).join("huggingface")
        });
        let saved_token =
            || fs::read_to_string(home.join("token")).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        Self {
            endpoint: var("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".to_owned())
                .trim_end_matches('/')
                .to_owned(),
            token: var("HF_TOKEN").or_else(|| var("HUGGING_FACE_HUB_TOKEN")).or_else(saved_token),
            cache: directory("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub")),
            offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
            progress: !is_set("HF_HUB_DISABLE_PROGRESS_BARS") && !IS_QUIET.load(Ordering::Relaxed),
            patience: match var("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|seconds| seconds.parse().ok()) {
                Some(seconds) if seconds > 0 => {
                    Patience { timeout: Duration::from_secs(seconds), ..Patience::default() }
                }
                _ => Patience::default(),
            },
        }
    }
}

/// The path that `huggingface_hub` reads in a variable: `~` at the start is the home directory, then `$NAME` and `${NAME}`
/// are the values of variables.
fn expanded(path: &str, var: impl Fn(&str) -> Option<String>) -> PathBuf {
    let below_home = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with(is_separator));
    match (below_home, env::home_dir()) {
        (Some(rest), Some(home)) => home.join(with_values(rest.trim_start_matches(is_separator), var)),
        _ => with_values(path, var).into(),
    }
}

/// A text with the values of variables in place of `$NAME` and `${NAME}`. A variable that is not set stays as it is
/// written, as in Python's `expandvars`.
fn with_values(text: &str, var: impl Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        let (before, reference) = rest.split_at(at);
        out.push_str(before);
        let after = &reference[1..];
        let braced = after.strip_prefix('{').and_then(|after| after.split_once('}')).map(|(name, _)| name);
        let plain = || {
            let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
            &after[..end]
        };
        let name = braced.unwrap_or_else(plain);
        let len = 1 + name.len() + if braced.is_some() { 2 } else { 0 };
        let value = Some(name).filter(|name| !name.is_empty()).and_then(&var);
        out.push_str(value.as_deref().unwrap_or(&reference[..len]));
        rest = &reference[len..];
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_environment_is_read_as_hugging_face_reads_it() {
        let with = |vars: &'static [(&str, &str)]| {
            Hub::from_vars(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        let hub = with(&[
            ("HF_HOME", "/h"),
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_TOKEN", " t\n"),
            ("HF_HUB_OFFLINE", "True"),
        ]);
        assert_eq!(hub.cache, Path::new("/h/hub"));
        assert_eq!(hub.endpoint, "http://mirror");
        assert_eq!(hub.token.as_deref(), Some("t"));
        assert!(hub.offline && hub.progress);
        let hub = with(&[("XDG_CACHE_HOME", "/x"), ("HF_HUB_OFFLINE", "0"), ("HF_HUB_DISABLE_PROGRESS_BARS", "1")]);
        assert_eq!(hub.cache, Path::new("/x/huggingface/hub"));
        assert_eq!(hub.endpoint, "https://huggingface.co");
        assert!(!hub.offline && !hub.progress);
        assert_eq!(with(&[("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]).cache, Path::new("/c"));
    }

    #[test]
    fn a_directory_begins_at_home_or_in_other_variables() {
        let cache = |path: &str| {
            Hub::from_vars(|name| match name {
                "HF_HUB_CACHE" => Some(path.to_owned()),
                "HF_HOME" => Some("$SCRATCH/hf".to_owned()),
                "SCRATCH" => Some("/s$USER".to_owned()),
                "USER" => Some("me".to_owned()),
                _ => None,
            })
            .cache
        };
        let home = env::home_dir().unwrap();
        for (path, expected) in [
            ("~/models", home.join("models")),
            ("~", home.clone()),
            ("~/$USER", home.join("me")),
            // Values are not expanded again.
            ("$SCRATCH/${USER}s/hub", "/s$USER/mes/hub".into()),
            ("/a/${USER}$USER", "/a/meme".into()),
            ("", "/s$USER/hf/hub".into()),
            // What names no variable stays.
            ("/a/$NONE/${NONE}/$/${USER/~", "/a/$NONE/${NONE}/$/${USER/~".into()),
            ("~me/models", "~me/models".into()),
        ] {
            assert_eq!(cache(path), expected, "{path}");
        }
    }

    #[test]
    fn a_saved_token_is_used_unless_the_environment_has_one() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("token"), "saved\n").unwrap();
        let path = home.path().to_str().unwrap();
        let token = |given: Option<&str>| {
            let var = |name: &str| match name {
                "HF_HOME" => Some(path.to_owned()),
                "HF_TOKEN" => given.map(str::to_owned),
                _ => None,
            };
            Hub::from_vars(var).token
        };
        assert_eq!(token(None).as_deref(), Some("saved"));
        assert_eq!(token(Some("given")).as_deref(), Some("given"));
    }
}
