//! Archives of ejabberd and Prosody that are full before they start: rows as they write them themselves, put straight into
//! their SQLite files while they do not run.
//!
//! In: how many messages. Out: a file the server takes for its own. Never: a row that server would not have written.

use super::{DOMAIN, Setup};
use crate::client::localpart;
use crate::fleet::check_stop;
use anyhow::{Context as _, bail};
use rusqlite::{Connection, Statement, params};
use std::path::Path;

/// When the first of the stored messages was sent, in ms since 1970; the others follow, a millisecond apart.
pub const FIRST_MS: u64 = 1_700_000_000_000;
/// Messages between two looks whether to stop.
const BATCH: u64 = 100_000;

/// A stored message.
struct Message {
    number: u64,
    owner: String,
    peer: String,
    xml: String,
    body: String,
    time_ms: u64,
}

/// What ejabberd's schema for SQLite says of archives (`lite.sql` of its package), and its rows.
pub fn ejabberd(path: &Path, schema: &str, setup: &Setup) -> anyhow::Result<()> {
    let db = open(path)?;
    // Indexes are made last: a fifth of the time, the same file.
    let (tables, indexes): (Vec<&str>, Vec<&str>) = schema
        .split_inclusive(';')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .partition(|s| s.contains("CREATE TABLE"));
    db.execute_batch(&tables.join("\n"))?;
    fill(
        &db,
        "INSERT INTO archive (username, timestamp, peer, bare_peer, xml, txt, kind, nick) VALUES (?, ?, ?, ?, ?, ?, 'chat', '')",
        setup,
        &|statement, m| {
            statement.execute(params![
                m.owner,
                m.time_ms.cast_signed() * 1_000,
                m.peer,
                m.peer,
                m.xml,
                m.body
            ])
        },
    )?;
    db.execute_batch(&indexes.join("\n"))?;
    Ok(())
}

/// The tables of Prosody's `mod_storage_sql` and its rows.
pub fn prosody(path: &Path, setup: &Setup) -> anyhow::Result<()> {
    let db = open(path)?;
    db.execute_batch(
        r#"
CREATE TABLE "prosody" ("host" TEXT NOT NULL, "user" TEXT NOT NULL, "store" TEXT NOT NULL, "key" TEXT NOT NULL,
    "type" TEXT NOT NULL, "value" TEXT NOT NULL);
CREATE UNIQUE INDEX "prosody_unique_index" ON "prosody" ("host", "user", "store", "key");
CREATE TABLE "prosodyarchive" ("sort_id" INTEGER PRIMARY KEY AUTOINCREMENT, "host" TEXT NOT NULL, "user" TEXT NOT NULL,
    "store" TEXT NOT NULL, "key" TEXT NOT NULL, "when" INTEGER NOT NULL, "with" TEXT NOT NULL, "type" TEXT NOT NULL,
    "value" TEXT NOT NULL);
"#,
    )?;
    fill(
        &db,
        r#"INSERT INTO "prosodyarchive" ("host", "user", "store", "key", "when", "with", "type", "value")
           VALUES (?, ?, 'archive', ?, ?, ?, 'xml', ?)"#,
        setup,
        &|statement, m| {
            // Its ids are random; these are as long and in no order.
            let id = format!("{:024x}", m.number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            statement.execute(params![
                DOMAIN,
                m.owner,
                id,
                m.time_ms.cast_signed() / 1_000,
                m.peer,
                m.xml
            ])
        },
    )?;
    db.execute_batch(
        r#"
CREATE UNIQUE INDEX "prosodyarchive_index" ON "prosodyarchive" ("host", "user", "store", "key");
CREATE INDEX "prosodyarchive_with_when" ON "prosodyarchive" ("host", "user", "store", "with", "when");
CREATE INDEX "prosodyarchive_when" ON "prosodyarchive" ("host", "user", "store", "when");
CREATE INDEX "prosodyarchive_sort" ON "prosodyarchive" ("host", "user", "store", "sort_id");
"#,
    )?;
    Ok(())
}

/// The part of a schema that is about one table, with its indexes.
pub fn of_table(schema: &str, table: &str) -> anyhow::Result<String> {
    let about = |s: &str| {
        s.contains(&format!("CREATE TABLE {table} ("))
            || s.contains(&format!(" ON {table}("))
            || s.contains(&format!(" ON {table} ("))
    };
    let found: Vec<&str> = schema.split_inclusive(';').filter(|s| about(s)).collect();
    if found.is_empty() {
        bail!("the schema of the package has no table {table}");
    }
    Ok(found.concat())
}

fn open(path: &Path) -> anyhow::Result<Connection> {
    let db = Connection::open(path).with_context(|| path.display().to_string())?;
    // Nobody loses anything if this run is cut.
    db.execute_batch(
        "PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY; PRAGMA cache_size = -200000;",
    )?;
    Ok(db)
}

/// As many messages as are to be stored, of each account in turn.
fn fill(
    db: &Connection,
    insert: &str,
    setup: &Setup,
    put: &dyn Fn(&mut Statement<'_>, &Message) -> rusqlite::Result<usize>,
) -> anyhow::Result<()> {
    let body = "x".repeat(100);
    let mut number = 0;
    while number < setup.stored {
        check_stop()?;
        let end = (number + BATCH).min(setup.stored);
        db.execute_batch("BEGIN")?;
        let mut statement = db.prepare_cached(insert)?;
        for n in number..end {
            let owner = n as usize % setup.accounts;
            let peer = (owner ^ 1).min(setup.accounts - 1);
            let outgoing = (n as usize / setup.accounts).is_multiple_of(2);
            let (from, to) = if outgoing {
                (owner, peer)
            } else {
                (peer, owner)
            };
            put(
                &mut statement,
                &Message {
                    number: n,
                    owner: localpart(owner),
                    peer: format!("{}@{DOMAIN}", localpart(peer)),
                    xml: format!(
                        "<message xml:lang='en' to='{}@{DOMAIN}' from='{}@{DOMAIN}/b' type='chat' xmlns='jabber:client'><body>{body}</body></message>",
                        localpart(to),
                        localpart(from)
                    ),
                    body: body.clone(),
                    time_ms: FIRST_MS + n,
                },
            )?;
        }
        db.execute_batch("COMMIT")?;
        number = end;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_of_a_schema_is_cut_out_with_its_indexes() {
        let schema = "CREATE TABLE a (x text);\nCREATE INDEX i ON a(x);\nCREATE TABLE archive (y text);\n\
                      CREATE INDEX j ON archive (y);\nCREATE TABLE archive_prefs (z text);\n";
        let found = of_table(schema, "archive").unwrap();
        assert_eq!(found.matches(';').count(), 2, "{found}");
        assert!(!found.contains("archive_prefs"));
        assert!(of_table(schema, "none").is_err());
    }
}
