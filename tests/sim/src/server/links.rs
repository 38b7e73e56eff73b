//! The server's ends of the links: what muxes send, what shards have for them.
//!
//! In: bytes of a transport, commands of shards. Out: events for the shards, bytes.
//! Never: hands on what a shard has not said; looks into a frame, but for what the oracle must know of it.

use crate::breaks::Break;
use crate::world::{Ev, World};
use bytes::{Bytes, BytesMut};
use imserver::event::{Event, LinkCommand, LinkId, ShardId};
use imserver::linkset::{HelloError, Identity};
use proto::frame::{Frame, ListenerKind};
use proto::server_side::read_hello;

impl World {
    pub(crate) fn to_links(&mut self, run: u32, shard: usize, commands: Vec<LinkCommand>) {
        if self.server(run).is_none() {
            return;
        }
        for mut command in commands {
            self.look_at(&mut command);
            let server = self.server.as_mut().expect("it runs");
            server.links.command(ShardId(shard as u16), command);
        }
        self.after_links();
    }

    /// What the server says is settled is accepted from that moment on.
    fn look_at(&mut self, command: &mut LinkCommand) {
        let LinkCommand::Frame {
            link,
            frame: Frame::Marks(conn, marks),
            ..
        } = command
        else {
            return;
        };
        let server = self.server.as_ref().expect("it runs");
        let Some(&(mux, boot)) = server.link_of.get(link) else {
            return;
        };
        if self.broken == Some(Break::SettleEarly)
            && let Some(&input) = server.input.get(&(*link, conn.0))
        {
            marks.settled_bytes = marks.settled_bytes.max(input);
            marks.input_bytes_max = marks.input_bytes_max.max(input);
        }
        let settled = marks.settled_bytes;
        if let Some(tcp) = self.tcp_of(mux, boot, *conn) {
            self.settled(tcp, settled);
        }
    }

    /// Hands on what the links have for the shards, and sends what they have for the muxes.
    fn after_links(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        let run = server.run;
        let mut per_shard: Vec<Vec<Event>> = server.shards.iter().map(|_| Vec::new()).collect();
        for (shard, mut event) in server.links.take_events() {
            match &mut event {
                Event::Resumed(key, resume, _) => {
                    if self.broken == Some(Break::ForgetHeld) {
                        resume.held.clear();
                    }
                    server
                        .input
                        .insert((key.link, key.conn.0), resume.settled_bytes);
                }
                Event::Input(key, input) => {
                    *server.input.entry((key.link, key.conn.0)).or_default() +=
                        input.bytes.len() as u64;
                }
                _ => {}
            }
            per_shard[usize::from(shard.0)].push(event);
        }
        let links: Vec<(LinkId, usize)> = server.transports.iter().map(|(&l, &t)| (l, t)).collect();
        for (shard, events) in per_shard.into_iter().enumerate() {
            if !events.is_empty() {
                let at = self.way(|s| &mut s.shards[shard].from_links);
                self.at(at, Ev::ToShard { run, shard, events });
            }
        }
        for (link, transport) in links {
            while let Some(bytes) = self.server.as_mut().and_then(|s| s.links.poll_output(link)) {
                self.send_on(transport, false, bytes);
            }
        }
        self.plan_links_timer();
    }

    fn plan_links_timer(&mut self) {
        let Some(server) = &mut self.server else {
            return;
        };
        let Some(due) = server.links.poll_timeout() else {
            return;
        };
        let at = due.saturating_duration_since(self.base).as_micros() as u64;
        if at < server.links_timer {
            server.links_timer = at;
            let run = server.run;
            self.at(at, Ev::LinksTimer { run });
        }
    }

    pub(crate) fn links_timer(&mut self, run: u32) {
        let (now, now_us) = (self.instant(), self.now_us);
        let Some(server) = self.server(run) else {
            return;
        };
        if server.links_timer > now_us {
            return;
        }
        server.links_timer = u64::MAX;
        let down = server.links.handle_timeout(now);
        for (link, error) in down {
            self.trace.line(
                now_us,
                0x13,
                format_args!("server: link {} is dead: {error}", link.0),
            );
            if let Some(&transport) = self.server.as_ref().and_then(|s| s.transports.get(&link)) {
                self.close_at_server(transport);
            }
        }
        self.after_links();
    }

    /// Bytes of a mux.
    pub(crate) fn server_bytes(&mut self, transport: usize, bytes: &Bytes) {
        let now = self.instant();
        let t = &mut self.transports[transport];
        let (mux, boot) = (t.mux, t.boot);
        t.server_in.extend_from_slice(bytes);
        let mut input = std::mem::take(&mut t.server_in);
        let result = self.take_input(now, transport, mux, boot, &mut input);
        self.transports[transport].server_in = input;
        if let Err(reason) = result {
            self.fail(format!(
                "the server refuses link bytes of mux {mux}: {reason}"
            ));
            self.close_at_server(transport);
        }
        self.after_links();
    }

    fn take_input(
        &mut self,
        now: std::time::Instant,
        transport: usize,
        mux: usize,
        boot: u32,
        input: &mut BytesMut,
    ) -> Result<(), String> {
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        if self.transports[transport].link.is_none() {
            let Some(hello) = read_hello(input).map_err(|e| e.to_string())? else {
                return Ok(());
            };
            let identity = Identity {
                name: hello.name.clone(),
                kinds: vec![ListenerKind::C2s],
                domains: None,
                trust_client_certificates: false,
            };
            let link = match server.links.hello(now, identity, hello) {
                Ok(link) => link,
                // Its host died with the process before it: nobody has told the server, which waits for a sign of life.
                Err(HelloError::Taken(_)) => {
                    self.close_at_server(transport);
                    return Ok(());
                }
                Err(e) => return Err(e.to_string()),
            };
            let old = server.transports.insert(link, transport);
            server.link_of.insert(link, (mux, boot));
            self.transports[transport].link = Some(link);
            if let Some(old) = old {
                self.transports[old].server_open = false;
                self.break_transport(old);
            }
            if input.is_empty() {
                return Ok(());
            }
        }
        let link = self.transports[transport].link.expect("set above");
        let server = self.server.as_mut().expect("it runs");
        server
            .links
            .handle_bytes(now, link, input)
            .map_err(|e| e.to_string())
    }

    /// The transport is at an end, as the server sees it.
    pub(crate) fn close_at_server(&mut self, transport: usize) {
        let now = self.instant();
        let t = &mut self.transports[transport];
        if !std::mem::replace(&mut t.server_open, false) {
            return;
        }
        let (link, run) = (t.link, t.run);
        self.break_transport(transport);
        let delay = self.rng.delay(5_000);
        self.after(
            delay,
            Ev::LinkGone {
                transport,
                at_server: false,
            },
        );
        let Some(server) = self.server(run) else {
            return;
        };
        if let Some(link) = link
            && server.transports.get(&link) == Some(&transport)
        {
            server.transports.remove(&link);
            server.links.handle_down(now, link);
        }
        self.after_links();
    }
}
