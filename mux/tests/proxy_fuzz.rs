//! The fuzz target of the PROXY header on stable: headers with bytes changed, and the seeds that are kept.

#[path = "../../fuzz/harness/proxy.rs"]
mod harness;
#[path = "../src/proxy.rs"]
#[allow(dead_code)]
mod proxy;

fn seeds() -> Vec<Vec<u8>> {
    let dir = format!("{}/../fuzz/corpus/proxy_header", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_dir(&dir)
        .expect("the corpus is part of the repository")
        .map(|entry| std::fs::read(entry.expect("readable").path()).expect("readable"))
        .collect()
}

#[test]
fn the_kept_seeds_and_every_change_of_one_byte() {
    let seeds = seeds();
    assert!(seeds.len() >= 8, "the corpus is there");
    for seed in &seeds {
        harness::proxy_header(seed);
        for at in 0..seed.len().min(300) {
            for change in [0x01, 0x10, 0x20, 0x80, 0xFF] {
                let mut changed = seed.clone();
                changed[at] ^= change;
                harness::proxy_header(&changed);
            }
            let mut shorter = seed.clone();
            shorter.remove(at);
            harness::proxy_header(&shorter);
        }
    }
}
