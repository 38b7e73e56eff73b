//! The fuzz targets of WebSocket on stable: frames and requests with bytes changed, and the seeds that are kept.

#[path = "../src/websocket/frame.rs"]
#[allow(dead_code)]
mod frame;
#[path = "../src/websocket/handshake.rs"]
#[allow(dead_code)]
mod handshake;
#[path = "../../fuzz/harness/websocket.rs"]
mod harness;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = format!("{}/../fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_dir(&dir)
        .expect("the corpus is part of the repository")
        .map(|entry| std::fs::read(entry.expect("readable").path()).expect("readable"))
        .collect()
}

fn check(target: &str, run: fn(&[u8])) {
    let seeds = seeds(target);
    assert!(seeds.len() >= 5, "the corpus is there");
    for seed in &seeds {
        run(seed);
        for at in 0..seed.len().min(300) {
            for change in [0x01, 0x10, 0x20, 0x40, 0x80, 0xFF] {
                let mut changed = seed.clone();
                changed[at] ^= change;
                run(&changed);
            }
            let mut shorter = seed.clone();
            shorter.remove(at);
            run(&shorter);
        }
    }
}

#[test]
fn frames_and_every_change_of_one_byte() {
    check("websocket_frames", harness::frames);
}

#[test]
fn requests_and_every_change_of_one_byte() {
    check("websocket_request", harness::request);
}
