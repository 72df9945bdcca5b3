//! Processes: this program again, in a role. They are told things and asked by lines, and end when the bench does.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio, exit};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Role;

/// The first argument of a child; the second is its role.
pub(crate) const ROLE: &str = "role";

/// No child lives for longer: something has gone wrong.
const LIFETIME: Duration = Duration::from_secs(120);

/// A child process. It ends when this is dropped, and when the bench ends, however that is.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Child {
    /// Starts a child, and waits until it says that it is ready; the second is what it says.
    pub(crate) fn start<T: DeserializeOwned>(role: &Role) -> (Self, T) {
        let program = env::current_exe().expect("a running program has a file");
        let role = serde_json::to_string(role).expect("a role can be written");
        let mut command = Command::new(program);
        command.args([ROLE, &role]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("this program can be started again");
        let questions = process.stdin.take().expect("stdin is a pipe");
        let answers = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        let mut child = Self { process, questions, answers };
        let ready = child.hear();
        (child, ready)
    }

    /// Asks the child what its role is about, and waits for the answer.
    pub(crate) fn ask<T: DeserializeOwned>(&mut self) -> T {
        writeln!(self.questions).expect("the child listens");
        self.hear()
    }

    fn hear<T: DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the child has a stdout");
        serde_json::from_str(&line).expect("the child answers, or it has said on stderr why it can't")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The bench, as a child sees it.
#[derive(Debug)]
pub(crate) struct Parent(Receiver<()>);

impl Parent {
    /// From now on this process ends with its parent.
    pub(crate) fn new() -> Self {
        let (asked, questions) = channel();
        thread::spawn(move || {
            for _ in io::stdin().lines().map_while(Result::ok) {
                let _ = asked.send(());
            }
            exit(0);
        });
        thread::spawn(|| {
            thread::sleep(LIFETIME);
            eprintln!("network: {:?} did not end within {LIFETIME:?}", env::args().nth(2));
            exit(1);
        });
        Self(questions)
    }

    /// Waits for the next question.
    pub(crate) fn wait(&self) {
        // Without a parent there is no process.
        let _ = self.0.recv();
    }

    pub(crate) fn tell(&self, answer: &impl Serialize) {
        let line = serde_json::to_string(answer).expect("an answer can be written");
        println!("{line}");
    }

    /// Tells at each question what the process has used.
    pub(crate) fn tell_usage(&self) -> ! {
        loop {
            self.wait();
            self.tell(&Usage::now());
        }
    }
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Usage {
    /// Seconds of CPU time, of all threads, the system's part included.
    pub(crate) cpu: f64,
    /// Bytes of memory that are resident.
    pub(crate) resident: f64,
}

impl Usage {
    pub(crate) fn now() -> Self {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = time.tv_sec as f64 + time.tv_nsec as f64 / 1e9;
        // Not `status`, whose counts lag behind by what each thread has not yet added.
        let memory = fs::read_to_string("/proc/self/smaps_rollup").expect("this is Linux");
        let resident = memory.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB"));
        let kilobytes: f64 = resident.and_then(|number| number.parse().ok()).expect("it says what is resident");
        Self { cpu, resident: kilobytes * 1024.0 }
    }
}
