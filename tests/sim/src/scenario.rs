//! What goes wrong in a run: each scenario is a mix of faults, sizes and habits; the seed draws the moments.

use crate::rng::Rng;

/// A mix of faults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Nothing goes wrong.
    Calm,
    /// Links are cut and restored, loudly or silently.
    Cuts,
    /// The server is killed, also several times in a row and at chosen moments.
    Kills,
    /// Muxes are killed and replaced.
    Muxes,
    /// Clients vanish without a FIN.
    Vanish,
    /// The disk is slow, or refuses writes.
    Disk,
    /// Small windows and limits; slow clients.
    Tight,
    /// Kills and vanishing clients with two resources each.
    Resources,
    /// Everything.
    Storm,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Scenario; 9] = [
        Scenario::Calm,
        Scenario::Cuts,
        Scenario::Kills,
        Scenario::Muxes,
        Scenario::Vanish,
        Scenario::Disk,
        Scenario::Tight,
        Scenario::Resources,
        Scenario::Storm,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Cuts => "cuts",
            Self::Kills => "kills",
            Self::Muxes => "muxes",
            Self::Vanish => "vanish",
            Self::Disk => "disk",
            Self::Tight => "tight",
            Self::Resources => "resources",
            Self::Storm => "storm",
        }
    }

    /// By name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.name() == name)
    }

    /// What a seed gets when nobody asks for one.
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.below(100) {
            0..4 => Self::Calm,
            4..14 => Self::Cuts,
            14..36 => Self::Kills,
            36..46 => Self::Muxes,
            46..56 => Self::Vanish,
            56..64 => Self::Disk,
            64..72 => Self::Tight,
            72..86 => Self::Resources,
            _ => Self::Storm,
        }
    }

    /// Its numbers.
    pub fn plan(self, rng: &mut Rng) -> Plan {
        let mut plan = Plan {
            accounts: rng.between(4, 7) as usize,
            twins: rng.between(1, 3) as usize,
            shards: rng.between(2, 3) as u16,
            active_us: rng.between(8, 16) * 1_000_000,
            act_us: rng.between(300, 1_200) * 1_000,
            groups: rng.between(0, 3) as usize,
            regroups: rng.between(0, 6),
            archive: rng.permille(600),
            ..Plan::default()
        };
        match self {
            Self::Calm => {}
            Self::Cuts => plan.cuts = rng.between(2, 8),
            Self::Kills => plan.kills = rng.between(1, 8),
            Self::Muxes => plan.mux_kills = rng.between(1, 4),
            Self::Vanish => plan.vanish_permille = 60,
            Self::Disk => {
                plan.disk_full = rng.between(0, 3);
                plan.disk_slow = rng.between(1, 3);
                plan.kills = rng.between(0, 1);
            }
            Self::Tight => {
                plan.tight = true;
                plan.kills = rng.between(0, 2);
                plan.vanish_permille = 20;
            }
            Self::Resources => {
                plan.twins = plan.accounts;
                plan.kills = rng.between(0, 5);
                plan.vanish_permille = rng.between(0, 40);
                plan.cuts = rng.between(0, 2);
            }
            Self::Storm => {
                plan.kills = rng.between(0, 5);
                plan.cuts = rng.between(0, 5);
                plan.mux_kills = rng.between(0, 2);
                plan.vanish_permille = rng.between(0, 50);
                plan.disk_full = rng.between(0, 1);
                plan.disk_slow = rng.between(0, 1);
                plan.tight = rng.permille(200);
            }
        }
        plan
    }
}

/// Numbers of one run.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Accounts.
    pub accounts: usize,
    /// Accounts with a second resource.
    pub twins: usize,
    /// Shards of the server.
    pub shards: u16,
    /// How long clients are active, microseconds.
    pub active_us: u64,
    /// Mean time between two acts of a client.
    pub act_us: u64,
    /// Groups of the directory.
    pub groups: usize,
    /// Changes of them.
    pub regroups: u64,
    /// Link cuts.
    pub cuts: u64,
    /// Kills of the server.
    pub kills: u64,
    /// Kills of a mux.
    pub mux_kills: u64,
    /// How many acts in a thousand are a vanishing.
    pub vanish_permille: u64,
    /// Times the disk refuses writes.
    pub disk_full: u64,
    /// Times the disk is slow.
    pub disk_slow: u64,
    /// Small windows.
    pub tight: bool,
    /// The domain has an archive.
    pub archive: bool,
    /// Clients publish items, and hear of those of others.
    pub pep: bool,
    /// Accounts block one another.
    pub blocking: bool,
}
