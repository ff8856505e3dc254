//! The flags of `tamt completions` and `tamt man`, which print what the definition of the command line says.

use std::path::PathBuf;

use clap_complete::Shell;

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  tamt completions bash > ~/.local/share/bash-completion/completions/tamt
  tamt completions zsh > ~/.zfunc/_tamt
  tamt completions fish > ~/.config/fish/completions/tamt.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  tamt man ~/.local/share/man/man1
  man tamt-find";

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Shell that reads the script
    #[arg(value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = MAN_EXAMPLES)]
pub(crate) struct ManArgs {
    /// Directory to write to; a missing one is created
    #[arg(value_name = "DIR")]
    pub(crate) directory: PathBuf,
}
