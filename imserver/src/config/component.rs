//! `[[component]]`: programs that are domains of their own (XEP-0114), and what they may do (XEP-0356).

use super::check::required;
use super::file::{ComponentFile, File};
use super::reader::{Reader, Strings, Written};
use crate::event::Secret;
use crate::privileges::{Access, Presence, Privileges};
use crate::settings::Component;
use std::collections::BTreeSet;
use std::path::Path;

/// Components: a site has a handful, and each stanza looks for its own among them.
const COMPONENTS_MAX: usize = 100;

/// Namespaces of requests of one component: each is written by hand, and told to it when it connects.
const NAMESPACES_MAX: usize = 100;

/// Those that are written. `served`: domains of people.
pub(super) fn components(
    reader: &mut Reader,
    file: &File,
    base: &Path,
    served: &[String],
) -> Vec<Component> {
    let mut out: Vec<Component> = Vec::new();
    for section in &file.component {
        let Some(component) = component(reader, section, base) else {
            continue;
        };
        let twice = out.iter().any(|c| c.domain == component.domain);
        if twice || served.contains(&component.domain) {
            let text = format!("the domain {} is listed twice", component.domain);
            reader.wrong_in(&section.at, "domain", &text);
        }
        out.push(component);
    }
    if let Some(section) = file.component.get(COMPONENTS_MAX) {
        let text = format!("there are more than {COMPONENTS_MAX} components");
        reader.wrong(&section.at, text);
    }
    out
}

fn component(reader: &mut Reader, section: &ComponentFile, base: &Path) -> Option<Component> {
    let domain = required(reader, &section.at, "domain", &section.domain);
    let file = required(reader, &section.at, "secret_file", &section.secret_file);
    let (written, file) = (domain?, file?);
    let domain = crate::policy::domain(&written.value);
    if domain.is_none() {
        let text = format!("{:?} is no domain", written.value);
        reader.wrong(&written.at, text);
    }
    let path = base.join(&file.value);
    let secret = super::directory::secret(&path).unwrap_or_else(|why| {
        reader.wrong(&file.at, format!("{} {why}", path.display()));
        String::new()
    });
    let privileges = privileges(reader, section);
    Some(Component {
        domain: domain?,
        label: section.label.as_ref().map(|l| l.value.clone()),
        secret: Secret(secret),
        privileges,
    })
}

/// What it may do in the name of our people.
fn privileges(reader: &mut Reader, section: &ComponentFile) -> Privileges {
    let roster = one_of(reader, &section.rosters, &Access::ALL, |a| a.name());
    let presence = one_of(reader, &section.presence, &Presence::ALL, |p| p.name());
    if let (Some(pushes), false) = (&section.roster_pushes, roster.gets())
        && pushes.value
    {
        let text = "only who may read rosters is told of changes: rosters = \"get\" or \"both\"";
        reader.wrong(&pushes.at, text);
    }
    if let (Some(written), Presence::Roster, false) = (&section.presence, presence, roster.gets()) {
        let text = "\"roster\" needs rosters = \"get\" or \"both\" (XEP-0356 section 7.4)";
        reader.wrong(&written.at, text);
    }
    let pushes = section.roster_pushes.as_ref().map(|p| p.value);
    Privileges {
        roster,
        roster_pushes: roster.gets() && pushes.unwrap_or(true),
        message: section.send_messages.as_ref().is_some_and(|k| k.value),
        iq: requests(reader, section),
        presence,
    }
}

/// Of these by its name, or the first.
fn one_of<T: Copy>(
    reader: &mut Reader,
    written: &Option<Written<String>>,
    all: &[T],
    name: impl Fn(&T) -> &'static str,
) -> T {
    let found = written
        .as_ref()
        .map(|w| all.iter().find(|x| name(x) == w.value));
    if let (Some(written), Some(None)) = (written, &found) {
        let names: Vec<String> = all.iter().map(|x| format!("{:?}", name(x))).collect();
        reader.wrong(&written.at, format!("must be one of {}", names.join(", ")));
    }
    *found.flatten().unwrap_or(&all[0])
}

/// What it may ask and set in their names.
fn requests(reader: &mut Reader, section: &ComponentFile) -> Vec<(String, Access)> {
    let mut read = |written: &Option<Written<Strings>>| -> BTreeSet<String> {
        let Some(written) = written else {
            return BTreeSet::new();
        };
        let strange = |c: char| c.is_whitespace() || c.is_control();
        for namespace in &written.value.0 {
            if namespace.is_empty() || namespace.contains(strange) {
                reader.wrong(&written.at, format!("{namespace:?} is no namespace"));
            }
        }
        if written.value.0.len() > NAMESPACES_MAX {
            let text = format!("there are more than {NAMESPACES_MAX} namespaces");
            reader.wrong(&written.at, text);
        }
        written.value.0.iter().cloned().collect()
    };
    let (get, set) = (read(&section.iq_get), read(&section.iq_set));
    let access = |of: &String| Access::of(get.contains(of), set.contains(of));
    let all = get.union(&set);
    all.map(|of| (of.clone(), access(of))).collect()
}
