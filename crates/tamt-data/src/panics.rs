//! Conversion of other crates' panics into values.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    /// Whether this thread is inside [`caught`], which silences the panic message.
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f` and returns the message of its panic as an error. The panic is not printed.
///
/// The first call installs a panic hook. The hook is silent for panics inside `f` and delegates all other panics, on
/// every thread, to the previous hook.
///
/// `f` must not leave shared state half modified when it panics.
pub(crate) fn caught<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // The thread-local variable is gone while a thread exits; no `f` runs at that point.
            if !CAUGHT.try_with(Cell::get).unwrap_or(false) {
                before(info);
            }
        }));
    });
    let outer = CAUGHT.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    CAUGHT.set(outer);
    result.map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_what_it_said() {
        assert_eq!(caught(|| 3), Ok(3));
        assert_eq!(caught(|| panic!("four is {}", 4)), Err::<(), _>("four is 4".to_owned()));
        assert_eq!(caught(|| panic!("plain")), Err::<(), _>("plain".to_owned()));
        assert_eq!(caught(|| panic::panic_any(7)), Err::<(), _>("no reason given".to_owned()));
        // Nested calls.
        assert_eq!(caught(|| (caught(|| panic!("inner")), 3)), Ok((Err::<(), _>("inner".to_owned()), 3)));
        assert!(!CAUGHT.get());
    }
}
