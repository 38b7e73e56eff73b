//! What the kernel must be asked for and std does not offer: cores, file descriptors, children that die with us.

#![allow(
    unsafe_code,
    reason = "sched_setaffinity, setrlimit, prctl and kill have no safe wrappers in std"
)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Pins the calling thread (0) or a process to one core.
pub fn pin(pid: u32, core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set; CPU_SET bounds-checks the core.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        set
    };
    // SAFETY: the set lives for the call and its true size is given.
    check(unsafe {
        libc::sched_setaffinity(pid as libc::pid_t, size_of::<libc::cpu_set_t>(), &set)
    })
}

/// Raises the number of open files to `wanted` or as far as is allowed; returns the new limit.
pub fn raise_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct lives for both calls.
    unsafe {
        check(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit))?;
        if limit.rlim_max < wanted {
            // Root may raise the hard limit too; others keep theirs.
            let raised = libc::rlimit {
                rlim_cur: wanted,
                rlim_max: wanted,
            };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 {
                return Ok(wanted);
            }
        }
        limit.rlim_cur = limit.rlim_max.min(wanted).max(limit.rlim_cur);
        check(libc::setrlimit(libc::RLIMIT_NOFILE, &limit))?;
    }
    Ok(limit.rlim_cur)
}

/// The child runs on `core`, in its own process group, and is killed when we die, however we die.
pub fn confine(command: &mut Command, core: usize) {
    command.process_group(0);
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl and sched_setaffinity.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            pin(0, core)
        });
    }
}

/// Asks one process to end.
pub fn terminate(pid: u32) {
    // SAFETY: kill touches no memory.
    unsafe { libc::kill(pid as libc::pid_t, libc::SIGTERM) };
}

/// Kills a process group made by [`confine`].
pub fn kill_group(pid: u32) {
    // SAFETY: kill touches no memory.
    unsafe { libc::kill(-(pid as libc::pid_t), libc::SIGKILL) };
}

/// Kernel ticks per second, the unit of /proc/PID/stat.
pub fn ticks_per_second() -> f64 {
    // SAFETY: sysconf touches no memory.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
