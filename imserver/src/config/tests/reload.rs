//! What a reload changes, and what waits for a restart.

use super::*;

#[test]
fn a_reload_says_what_changes_and_when() {
    let site = Site::new();
    let old = site.good(SMALL);
    let changed = SMALL.replace("\"data\"", "\"elsewhere\"")
        + "[limits]\nroster_items_max = 100\n[shards]\ncount = 3\n";
    let new = site.good(&changed);
    let said: Vec<String> = old.changes(&new).iter().map(Change::to_string).collect();
    assert_eq!(
        said,
        [
            "data_dir: \"data\" -> \"elsewhere\" (waits for a restart)",
            "limits.roster_items_max: (default) -> 100",
            "shards.count: (default) -> 3 (waits for a restart)",
        ]
    );
    let running = old.reloaded(new.clone());
    assert_eq!(running.limits.roster_items_max, 100);
    assert_eq!(running.data_dir, old.data_dir);
    assert_eq!(running.shards, old.shards);
    assert!(old.changes(&old).is_empty());
}

#[test]
fn a_reload_sees_sections_come_and_go() {
    let site = Site::new();
    let one = site.good(&format!("{SMALL}[[mux]]\nname = \"mux1\"\n"));
    let two = site.good(&format!(
        "{SMALL}[[mux]]\nname = \"mux2\"\ntrust_client_certificates = true\n"
    ));
    let said: Vec<String> = one.changes(&two).iter().map(Change::to_string).collect();
    assert_eq!(
        said,
        [
            "mux.mux1.name: \"mux1\" -> (default)",
            "mux.mux2.name: (default) -> \"mux2\"",
            "mux.mux2.trust_client_certificates: (default) -> true",
        ]
    );
    assert_eq!(one.reloaded(two).muxes[0].name, "mux2");
}
