//! What outlives a killed node just long enough to take its children along.
//!
//! A child that reads its socket learns of the node's death by itself. One that is stopped, or stuck, or has children of its
//! own, does not. So a shell beside the node holds one end of a pipe, knows the children's process groups, and kills what
//! is left when the pipe ends, which it does however the node ends.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// Reads `+ group` and `- group`; at the end of input kills the groups that are left.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
groups=' '
while read -r what group; do
  case $what in
    +) groups="$groups$group " ;;
    -) case $groups in *" $group "*) groups="${groups%%" $group "*} ${groups#*" $group "}" ;; esac ;;
  esac
done
for group in $groups; do kill -s KILL -- "-$group"; done
"#;

static GUARDIAN: Mutex<Guardian> = Mutex::new(Guardian { shell: None, groups: Vec::new() });

struct Guardian {
    shell: Option<Child>,
    groups: Vec<u32>,
}

/// Has the process group killed when this process ends before [`forget`] is called.
pub(super) fn watch(group: u32) {
    let mut guardian = GUARDIAN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    guardian.groups.push(group);
    guardian.tell('+', group);
}

/// The process group has ended.
pub(super) fn forget(group: u32) {
    let mut guardian = GUARDIAN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    guardian.groups.retain(|other| *other != group);
    guardian.tell('-', group);
}

impl Guardian {
    fn tell(&mut self, what: char, group: u32) {
        if self.write(&format!("{what} {group}\n")).is_ok() {
            return;
        }
        // It was never there, or somebody has killed it.
        if let Some(mut shell) = self.shell.take() {
            let _ = shell.kill();
            let _ = shell.wait();
        }
        let started = self.start();
        let groups: String = self.groups.iter().map(|group| format!("+ {group}\n")).collect();
        if let Err(error) = started.and_then(|()| self.write(&groups)) {
            tracing::warn!(%error, "no shell to watch over process workers: should this process be killed, they may stay");
        }
    }

    fn start(&mut self) -> io::Result<()> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "edri-guardian"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Away from the terminal's Ctrl-C and from whoever kills the node's group.
            .process_group(0)
            .spawn()?;
        self.shell = Some(shell);
        Ok(())
    }

    fn write(&mut self, lines: &str) -> io::Result<()> {
        let input = self.shell.as_mut().and_then(|shell| shell.stdin.as_mut());
        input.ok_or(io::ErrorKind::NotConnected)?.write_all(lines.as_bytes())
    }
}
