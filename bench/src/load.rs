//! The loads: what clients do, and what is measured meanwhile.

pub mod chat;
pub mod idle;
pub mod login;
pub mod pages;

use crate::proc::{self, Usage};
use serde::Serialize;

/// Cost of the servers, by process and in all, and of the generator.
#[derive(Clone, Serialize, Default, Debug)]
pub struct Cost {
    /// CPU seconds of all server processes.
    pub cpu_s: f64,
    /// Of these, in the kernel.
    pub system_s: f64,
    /// CPU seconds by process name.
    pub by_process: Vec<(String, f64)>,
    /// Times a thread of the servers went to sleep.
    pub switches: u64,
    /// CPU seconds of the generator: near the duration of the run, and it was the bottleneck.
    pub generator_s: f64,
}

/// The processes under test.
#[derive(Clone, Debug)]
pub struct Processes(pub Vec<(String, u32)>);

/// A reading of all processes.
pub struct Reading {
    each: Vec<Usage>,
    generator: Usage,
}

impl Processes {
    /// Their ids.
    pub fn pids(&self) -> Vec<u32> {
        self.0.iter().map(|(_, pid)| *pid).collect()
    }

    /// Reads all.
    pub fn read(&self) -> Reading {
        Reading {
            each: self.0.iter().map(|(_, pid)| proc::usage(*pid)).collect(),
            generator: proc::usage_self(),
        }
    }

    /// What was spent since.
    pub fn since(&self, earlier: &Reading) -> Cost {
        let now = self.read();
        let spent: Vec<Usage> = now
            .each
            .iter()
            .zip(&earlier.each)
            .map(|(n, e)| n.since(e))
            .collect();
        Cost {
            cpu_s: spent.iter().map(Usage::cpu_s).sum(),
            system_s: spent.iter().map(|u| u.system_s).sum(),
            by_process: self
                .0
                .iter()
                .zip(&spent)
                .map(|((name, _), u)| (name.clone(), u.cpu_s()))
                .collect(),
            switches: spent.iter().map(|u| u.voluntary_switches).sum(),
            generator_s: now.generator.since(&earlier.generator).cpu_s(),
        }
    }
}
