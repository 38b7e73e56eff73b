//! The one writer: a batch of writes becomes one durable transaction of `log.db`.
//!
//! In: batches of writes. Out: what became of each. Owns: the writing connections to `log.db` and
//! `state.db`, the next position, the live origins. Never: touches `index.db`, runs a checkpoint,
//! deletes row by row while somebody waits, or says "stored" before COMMIT has returned.
//!
//! First a batch is planned in memory (positions, replays, bytes of rows), then written.

use std::sync::Arc;
use std::time::Duration;
use xmpp::jid::BareJid;

use super::index::IndexView;
use super::log::{INSERT, LOG, ORIGIN_FLOOR};
use super::open::Db;
use super::origins::{Entry, Origins};
use super::record::{
    ARCHIVE, Carried, Message, OUTGOING, PENDING, TEXT, encode_carried, encode_clear,
    encode_message,
};
use super::shared::{DeadRange, FOLD_AT_ROWS, Shared, TAIL_ROWS_MAX, Work, lock};
use super::state::{STATE, StateWriter};
use super::tail::{Body, Clear, TailRow};
use crate::StoreError;
use crate::traits::Writer;
use crate::types::{Append, Origin, Write, WriteError, Written};

/// How often, in rows, the floor for reading origins at a start is looked at again.
const FLOOR_EVERY_ROWS: u64 = 8_192;

/// Origins told this many rows ago are told again, so that a start reads no more than about this.
const CARRY_AFTER_ROWS: u64 = 65_536;

/// Dead rows deleted in one call of `maintain`: about a millisecond.
const SWEEP_ROWS: u64 = 4_096;

/// Fewer blocked dead rows than this are not worth telling origins again.
const SWEEP_BLOCKED_MIN: u64 = 64;

/// A range costs this many rows of the budget besides its rows: its page is read and written.
const SWEEP_RANGE_COST: u64 = 8;

/// The checkpoint thread is woken after this many bytes of rows: bounds the WAL.
const CHECKPOINT_BYTES: usize = 4 << 20;

/// Memory for the bytes of a batch kept from one batch to the next.
const ARENA_BYTES_KEPT: usize = 4 << 20;

/// One batch, planned.
#[derive(Default)]
struct Plan {
    /// Bytes of all new rows, one after the other.
    arena: Vec<u8>,
    /// End of each row in the arena.
    ends: Vec<usize>,
    /// The same rows for the tail.
    rows: Vec<TailRow>,
    /// Marks cleared by the batch: they become one row.
    clears: Vec<Clear>,
    /// Indexes of writes for `state.db`.
    state: Vec<usize>,
    /// What to do to the origins if the batch fails.
    undo: Vec<(u64, u64, BareJid, Option<Entry>)>,
    /// Origins told below the first are told by the row at the second.
    carried: Option<(u64, u64)>,
    /// New floor for reading origins.
    floor: Option<u64>,
    /// Ranges to delete.
    swept: Vec<(u64, u64)>,
}

impl Plan {
    fn clear(&mut self) {
        if self.arena.capacity() > ARENA_BYTES_KEPT {
            self.arena = Vec::new();
        }
        self.arena.clear();
        self.ends.clear();
        self.rows.clear();
        self.clears.clear();
        self.state.clear();
        self.undo.clear();
        self.carried = None;
        self.floor = None;
        self.swept.clear();
    }

    fn touches_log(&self) -> bool {
        !self.ends.is_empty() || self.floor.is_some() || !self.swept.is_empty()
    }
}

/// See the module.
pub(crate) struct SqliteWriter {
    shared: Arc<Shared>,
    log: Db,
    state: StateWriter,
    index: IndexView,
    origins: Origins,
    /// Next position.
    next: u64,
    /// As in the file: origins are read from here at a start, and only rows below are deleted.
    floor: u64,
    /// `next` when the floor was last looked at.
    floor_checked: u64,
    bytes_since_checkpoint: usize,
    plan: Plan,
    /// Bytes of the row being made.
    blob: Vec<u8>,
}

impl SqliteWriter {
    pub fn new(
        shared: Arc<Shared>,
        log: Db,
        state: StateWriter,
        index: IndexView,
        origins: Origins,
        floor: u64,
    ) -> Self {
        let next = lock(&shared.tail).end();
        let (plan, blob) = (Plan::default(), Vec::new());
        let bytes_since_checkpoint = 0;
        SqliteWriter {
            shared,
            log,
            state,
            index,
            origins,
            next,
            floor,
            floor_checked: next,
            bytes_since_checkpoint,
            plan,
            blob,
        }
    }

    fn push_row(&mut self, row: TailRow) {
        self.plan.arena.extend_from_slice(&self.blob);
        self.plan.ends.push(self.plan.arena.len());
        self.plan.rows.push(row);
        self.next += 1;
    }

    fn plan_append(&mut self, append: &Append) -> Result<Written, StoreError> {
        if let Some(origin) = append.origin {
            if let Some(replayed) = self.replayed(origin, &append.owner)? {
                return Ok(replayed);
            }
            let replaced = self
                .origins
                .insert(origin, append.owner.clone(), self.next, self.next);
            self.plan.undo.push((
                origin.session,
                origin.stanza,
                append.owner.clone(),
                replaced,
            ));
        }
        let mut flags = 0;
        for (flag, set) in [
            (ARCHIVE, append.archive),
            (PENDING, append.pending),
            (OUTGOING, append.outgoing),
            (TEXT, append.archive && append.text.is_some()),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let marked = append.archive || append.pending;
        let message = Message {
            text: append.text.clone().filter(|_| append.archive),
            flags,
            time_ms: append.time_ms,
            owner: append.owner.as_str(),
            peer: append.peer.as_str(),
            origin: append.origin,
            payload: if marked { &append.payload } else { &[] },
        };
        encode_message(&mut self.blob, &message);
        let body = Body::Message {
            owner: append.owner.clone(),
            peer: append.peer.clone(),
        };
        let position = self.next;
        self.push_row(TailRow::new(body, append.time_ms, flags));
        Ok(Written::Stored { position })
    }

    fn replayed(&mut self, origin: Origin, owner: &BareJid) -> Result<Option<Written>, StoreError> {
        let Some(entry) = self.origins.find(origin.session, origin.stanza, owner) else {
            return Ok(None);
        };
        if entry.hash != origin.hash {
            tracing::warn!(
                session = origin.session,
                stanza = origin.stanza,
                "a stanza came again with other bytes; stored as a new one"
            );
            return Ok(None);
        }
        let position = entry.position;
        let pending = self.is_pending(position, owner)?;
        Ok(Some(Written::Replayed { position, pending }))
    }

    /// Whether a row is pending, this batch's own writes included.
    fn is_pending(&mut self, position: u64, owner: &BareJid) -> Result<bool, StoreError> {
        let mut cleared = self
            .plan
            .clears
            .iter()
            .filter(|clear| clear.owner == *owner);
        if cleared.any(|clear| clear.positions.contains(&position)) {
            return Ok(false);
        }
        let first = self.next - self.plan.rows.len() as u64;
        if position >= first {
            return Ok(self.plan.rows[(position - first) as usize].pending());
        }
        self.index.is_pending(owner, position)
    }

    fn plan_write(&mut self, at: usize, write: &Write) -> Result<Written, StoreError> {
        match write {
            Write::Append(append) => return self.plan_append(append),
            Write::Ack { owner, positions } | Write::Drop { owner, positions } => {
                let drop = matches!(write, Write::Drop { .. });
                if !positions.is_empty() {
                    let (owner, positions) = (owner.clone(), positions.clone());
                    self.plan.clears.push(Clear {
                        owner,
                        drop,
                        positions,
                    });
                }
            }
            Write::ForgetOrigins {
                session,
                up_to_stanza,
            } => self.origins.forget(*session, *up_to_stanza),
            Write::ForgetSession { session } => self.origins.forget_session(*session),
            Write::RetainSessions { sessions } => self.origins.retain(sessions),
            Write::Roster { .. }
            | Write::SubscriptionRequest { .. }
            | Write::Blocklist { .. }
            | Write::Push { .. }
            | Write::VCard { .. }
            | Write::ArchivePrefs { .. }
            | Write::Private { .. }
            | Write::Tokens { .. }
            | Write::Pubsub { .. }
            | Write::AccountPut { .. }
            | Write::AccountKeys { .. }
            | Write::AccountKeysAdd { .. }
            | Write::AccountDisabled { .. }
            | Write::OverlayDisabled { .. }
            | Write::OverlayKeys { .. }
            | Write::Activity { .. }
            | Write::SiteValue { .. }
            | Write::AccountDelete { .. } => self.plan.state.push(at),
        }
        Ok(Written::Done)
    }

    /// All marks the batch clears, as one row.
    fn plan_clear_row(&mut self) {
        if self.plan.clears.is_empty() {
            return;
        }
        self.blob.clear();
        for clear in &self.plan.clears {
            encode_clear(
                &mut self.blob,
                clear.drop,
                clear.owner.as_str(),
                &clear.positions,
            );
        }
        let clears = std::mem::take(&mut self.plan.clears);
        self.push_row(TailRow::new(Body::Clear(clears.into()), 0, 0));
    }

    /// Moves the floor for reading origins, and tells old origins again if they hold it back.
    fn plan_floor(&mut self, carry_below: u64) {
        self.floor_checked = self.next;
        let lowest = self.origins.lowest_told_at();
        if lowest.is_some_and(|lowest| lowest < carry_below) {
            self.blob.clear();
            for (session, entry) in self.origins.told_below(carry_below) {
                let origin = Origin {
                    session,
                    stanza: entry.stanza,
                    hash: entry.hash,
                };
                let carried = Carried {
                    origin,
                    position: entry.position,
                    owner: entry.owner.as_str(),
                };
                encode_carried(&mut self.blob, &carried);
            }
            self.plan.carried = Some((carry_below, self.next));
            self.push_row(TailRow::new(Body::Origins, 0, 0));
        }
        let last = self.next - 1;
        let floor = self
            .origins
            .lowest_told_from(carry_below)
            .map_or(last, |lowest| lowest.min(last));
        if floor > self.floor {
            self.plan.floor = Some(floor);
        }
    }

    /// Chooses dead ranges to delete within a budget; they stay in the queue until it is done.
    fn plan_sweep(&mut self, mut budget: u64) -> bool {
        let floor = self.plan.floor.unwrap_or(self.floor);
        let sweep = lock(&self.shared.sweep);
        for range in &sweep.queue {
            if budget == 0 {
                return true;
            }
            let last = range
                .last
                .min(floor.saturating_sub(1))
                .min(range.first.saturating_add(budget - 1));
            if last < range.first {
                return false;
            }
            self.plan.swept.push((range.first, last));
            if last < range.last {
                return last < floor.saturating_sub(1);
            }
            budget = budget.saturating_sub(last - range.first + 1 + SWEEP_RANGE_COST);
        }
        false
    }

    /// Writes what was planned; durable when it returns.
    fn write(&mut self, writes: &[Write], results: &mut [Written]) -> Result<(), StoreError> {
        let activity = |at: &usize| matches!(writes[*at], Write::Activity { .. });
        let lazy = self.plan.state.iter().all(activity);
        if let Err(error) = self.write_state(writes, results, lazy) {
            // No message fails because it cannot be remembered who came.
            if !lazy || !self.plan.touches_log() {
                return Err(error);
            }
            self.state.rollback();
            self.fail_state(error, results);
        }
        if self.plan.touches_log() {
            self.write_log()?;
        }
        if self.state.is_open()
            && let Err(error) = self.state.commit()
        {
            self.state.rollback();
            if !self.plan.touches_log() {
                return Err(error);
            }
            self.fail_state(error, results);
        }
        Ok(())
    }

    fn write_state(
        &mut self,
        writes: &[Write],
        results: &mut [Written],
        lazy: bool,
    ) -> Result<(), StoreError> {
        if !self.plan.state.is_empty() {
            self.state.sync(!lazy)?;
        }
        for &at in &self.plan.state {
            results[at] = self.state.apply(&writes[at])?;
        }
        Ok(())
    }

    fn fail_state(&self, error: StoreError, results: &mut [Written]) {
        let error = Arc::new(error);
        for &at in &self.plan.state {
            results[at] = Written::Failed(WriteError::Store(error.clone()));
        }
    }

    fn write_log(&self) -> Result<(), StoreError> {
        let error = |e| self.log.error(e);
        self.log.execute("BEGIN IMMEDIATE")?;
        let mut insert = self.log.conn.prepare_cached(INSERT).map_err(error)?;
        let mut start = 0;
        for (position, &end) in (self.next - self.plan.ends.len() as u64..).zip(&self.plan.ends) {
            insert
                .execute((position as i64, &self.plan.arena[start..end]))
                .map_err(error)?;
            start = end;
        }
        if !self.plan.swept.is_empty() {
            let sql = "DELETE FROM log WHERE position BETWEEN ? AND ?";
            let mut delete = self.log.conn.prepare_cached(sql).map_err(error)?;
            for (first, last) in &self.plan.swept {
                delete
                    .execute((*first as i64, *last as i64))
                    .map_err(error)?;
            }
        }
        if let Some(floor) = self.plan.floor {
            self.log.set_meta(ORIGIN_FLOOR, floor as i64)?;
        }
        self.log.execute("COMMIT")
    }

    /// After a failure: as if the batch had never been.
    fn undo(&mut self) {
        self.log.rollback();
        self.state.rollback();
        for (session, stanza, owner, replaced) in self.plan.undo.drain(..).rev() {
            self.origins.undo(session, stanza, &owner, replaced);
        }
        self.next -= self.plan.rows.len() as u64;
        self.plan.clear();
    }

    /// After success: memory follows the disk.
    fn publish(&mut self) {
        if let Some((below, told_at)) = self.plan.carried {
            self.origins.carried(below, told_at);
        }
        if let Some(floor) = self.plan.floor {
            self.floor = floor;
        }
        self.publish_sweep();
        let mut rows_held = 0;
        if !self.plan.rows.is_empty() {
            let mut tail = lock(&self.shared.tail);
            for row in self.plan.rows.drain(..) {
                tail.push(row);
            }
            rows_held = tail.len();
        }
        self.bytes_since_checkpoint += self.plan.arena.len() + 2 * LOG.page_bytes as usize;
        // Each may have changed a page of its own.
        self.bytes_since_checkpoint += self.plan.state.len() * STATE.page_bytes as usize;
        if rows_held >= FOLD_AT_ROWS {
            self.shared.ask(Work::Fold);
        }
        if self.bytes_since_checkpoint >= CHECKPOINT_BYTES {
            self.bytes_since_checkpoint = 0;
            self.shared.ask(Work::Checkpoint);
        }
        self.plan.clear();
    }

    fn publish_sweep(&mut self) {
        if self.plan.swept.is_empty() {
            return;
        }
        let mut sweep = lock(&self.shared.sweep);
        for (first, last) in self.plan.swept.drain(..) {
            let Some(range) = sweep.queue.pop_front() else {
                continue;
            };
            debug_assert_eq!(range.first, first);
            if last < range.last {
                sweep.queue.push_front(DeadRange {
                    first: last + 1,
                    ..range
                });
            } else {
                sweep.done.push(range.key);
            }
        }
    }

    /// Waits while the index thread is far behind; gives up if it cannot work.
    fn wait_for_room(&self) -> Result<(), StoreError> {
        loop {
            if lock(&self.shared.tail).len() < TAIL_ROWS_MAX {
                return Ok(());
            }
            if let Some(failure) = lock(&self.shared.index_failure).clone() {
                return Err(failure);
            }
            self.shared.ask(Work::Fold);
            let tail = lock(&self.shared.tail);
            if tail.len() >= TAIL_ROWS_MAX {
                drop(
                    self.shared
                        .room
                        .wait_timeout(tail, Duration::from_millis(50)),
                );
            }
        }
    }

    fn finish(&mut self, writes: &[Write], results: &mut [Written]) -> Result<(), StoreError> {
        match self.write(writes, results) {
            Ok(()) => {
                self.publish();
                Ok(())
            }
            Err(error) => {
                self.undo();
                Err(error)
            }
        }
    }
}

impl Writer for SqliteWriter {
    fn commit(&mut self, writes: &[Write]) -> Result<Vec<Written>, StoreError> {
        self.wait_for_room()?;
        let shared = self.shared.clone();
        let _gate = shared.enter_gate();
        let mut results = Vec::with_capacity(writes.len());
        for (at, write) in writes.iter().enumerate() {
            match self.plan_write(at, write) {
                Ok(written) => results.push(written),
                Err(error) => {
                    self.undo();
                    return Err(error);
                }
            }
        }
        self.plan_clear_row();
        if !self.plan.rows.is_empty() {
            if self.next >= self.floor_checked + FLOOR_EVERY_ROWS {
                self.plan_floor(self.next.saturating_sub(CARRY_AFTER_ROWS));
            }
            self.plan_sweep(2 * self.plan.rows.len() as u64 + SWEEP_RANGE_COST);
        }
        self.finish(writes, &mut results)?;
        Ok(results)
    }

    fn maintain(&mut self) -> Result<bool, StoreError> {
        let (first_last, waiting) = {
            let sweep = lock(&self.shared.sweep);
            let waiting: u64 = sweep
                .queue
                .iter()
                .map(|range| range.last - range.first + 1)
                .sum();
            (sweep.queue.front().map(|range| range.last), waiting)
        };
        let Some(last) = first_last else {
            return Ok(false);
        };
        let shared = self.shared.clone();
        let _gate = shared.enter_gate();
        if last >= self.floor {
            let carry_below = if waiting >= SWEEP_BLOCKED_MIN {
                (last + 1).min(self.next)
            } else {
                0
            };
            self.plan_floor(carry_below);
        }
        let more = self.plan_sweep(SWEEP_ROWS);
        if self.plan.swept.is_empty() && self.plan.carried.is_none() {
            self.plan.clear();
            return Ok(false);
        }
        self.finish(&[], &mut [])?;
        Ok(more)
    }
}

impl SqliteWriter {
    /// Live origins held.
    #[cfg(test)]
    pub fn origin_count(&self) -> usize {
        self.origins.len()
    }

    /// Makes `state.db` refuse to grow.
    #[cfg(test)]
    pub fn limit_state_pages(&self, pages: u64) {
        self.state.limit_pages(pages);
    }

    /// Makes the files of this writer refuse to grow.
    #[cfg(test)]
    pub fn limit_pages(&self, pages: u64) {
        let set = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        self.log
            .conn
            .query_row(&format!("PRAGMA max_page_count={pages}"), [], set)
            .unwrap();
        self.state.limit_pages(pages);
    }

    /// Makes commits of `state.db` fail.
    #[cfg(test)]
    pub fn fail_state_commit(&mut self, fail: bool) {
        self.state.refuse_commit = fail;
    }
}
