//! `[[component]]`: programs that are domains of their own (XEP-0114), and what they may do (XEP-0356).

use super::check::required;
use super::file::{ComponentFile, File};
use super::reader::{Reader, Written};
use crate::event::Secret;
use crate::privileges::Privileges;
use crate::settings::Component;
use std::path::Path;

/// Components: a site has a handful, and each stanza looks for its own among them.
const COMPONENTS_MAX: usize = 100;

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
    let on = |key: &Option<Written<bool>>| key.as_ref().is_some_and(|k| k.value);
    Some(Component {
        domain: domain?,
        label: section.label.as_ref().map(|l| l.value.clone()),
        secret: Secret(secret),
        privileges: Privileges {
            roster: on(&section.read_rosters),
            message: on(&section.send_messages),
        },
    })
}
