//! What processes take of the machine.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How much memory of a process is resident now, and at most since it began, in bytes.
pub(crate) fn resident(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)).expect("every process has it");
        value.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// How many files and sockets this process may have open, as many as the system lets it; `wanted` suffice.
pub(crate) fn raise_descriptors(wanted: u64) -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let allowed = maximum.map_or(wanted, |maximum| wanted.min(maximum));
    if current.is_some_and(|current| current < allowed) {
        setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum }).expect("up to the maximum it may");
    }
    allowed
}
