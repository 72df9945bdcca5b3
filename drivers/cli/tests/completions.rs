//! Scripts that complete the command line: for each shell, with each command.

mod common;

use common::run;

#[test]
fn every_shell_learns_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell], "").good();
        for command in ["serve", "append", "tail", "sync", "log", "set", "watch", "demo", "completions"] {
            assert!(script.contains(command), "{shell} does not know {command}");
        }
        let json = run(&["completions", shell, "--json"], "").object();
        assert_eq!(json["script"].as_str().expect("text").trim_end(), script.trim_end());
    }
}
