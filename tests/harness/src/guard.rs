//! The guard: a small process that cleans up if the process that holds the server cannot.
//!
//! A killed process drops no values. The guard reads from a pipe whose other end only this process holds. The
//! kernel closes that end when the process ends, for whatever reason. The guard then stops the server and
//! removes its directory. (A parent-death signal does not work: it fires when the *thread* that started the
//! server ends.)

use crate::error::{Context, Result};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Each line of input is the process number of the running server, or empty if the server is stopped.
const SCRIPT: &str = r#"
pid=
while read -r line; do pid=$line; done
[ -z "$pid" ] || kill -QUIT "$pid" 2>/dev/null
tries=0
while [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null && [ $tries -lt 50 ]; do sleep 0.1; tries=$((tries + 1)); done
rm -rf -- "$1"
"#;

pub(crate) struct Guard {
    process: Child,
}

impl Guard {
    /// Starts a guard for the directory.
    pub(crate) fn new(directory: &Path) -> Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "server-guard"]).arg(directory).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0); // an interrupt typed at the terminal must not reach the guard
        Ok(Self { process: command.spawn().context(|| "cannot start the guard process (sh)".into())? })
    }

    /// Tells the guard the server's process, or that there is none.
    pub(crate) fn watch(&mut self, pid: Option<u32>) -> Result<()> {
        let line = pid.map_or_else(String::new, |pid| pid.to_string()) + "\n";
        let pipe = self.process.stdin.as_mut();
        pipe.map_or(Ok(()), |pipe| pipe.write_all(line.as_bytes()))
            .context(|| "the guard process has ended".into())
    }
}

impl Drop for Guard {
    /// Lets the guard remove the directory.
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}
