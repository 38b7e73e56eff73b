//! The fuzz target of SASL on stable: messages with bytes changed, and the seeds that are kept.

#[path = "../../fuzz/harness/sasl.rs"]
mod harness;

fn seeds() -> Vec<Vec<u8>> {
    let dir = format!("{}/../fuzz/corpus/sasl", env!("CARGO_MANIFEST_DIR"));
    let kept = std::fs::read_dir(&dir).expect("the corpus is part of the repository");
    let kept = kept.map(|entry| std::fs::read(entry.expect("readable").path()).expect("readable"));
    // A token's proof is as long as its hash.
    let token = [&b"romeo\0"[..], &[7; 32]].concat();
    kept.chain([token]).collect()
}

#[test]
fn the_kept_seeds_and_changes_of_one_byte() {
    let seeds = seeds();
    assert!(seeds.len() >= 100, "the corpus is there");
    for seed in &seeds {
        harness::sasl(seed);
        for at in 0..seed.len().min(80) {
            for change in [0x01, 0x20, 0x80, 0xFF] {
                let mut changed = seed.clone();
                changed[at] ^= change;
                harness::sasl(&changed);
            }
            let mut shorter = seed.clone();
            shorter.remove(at);
            harness::sasl(&shorter);
        }
    }
}
