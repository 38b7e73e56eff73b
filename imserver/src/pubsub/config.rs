//! How a node is configured (XEP-0060 §8.2, §16.4.4): the fields of the form, and what they may be.

use super::{ROSTER_GROUPS_MAX, Refusal, TEXT_BYTES_MAX};
use serde::{Deserialize, Serialize};
use xmpp::error::StanzaError;
use xmpp::form::{Field, FieldType, Form, FormType};
use xmpp::node::Node;
use xmpp::ns;

/// Declares an enumeration of values as they are in forms and in the store.
macro_rules! choices {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal: $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $word)] $variant,)* }

        impl $name {
            const ALL: &'static [(Self, &'static str, &'static str)] = &[$((Self::$variant, $word, $label),)*];

            /// As in a form.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            fn of(word: &str) -> Option<Self> {
                Self::ALL.iter().find(|(_, w, _)| *w == word).map(|(v, ..)| *v)
            }
        }
    };
}

choices! {
    /// Who may read and subscribe (§4.5).
    AccessModel {
        /// Anybody.
        Open = "open": "Anyone",
        /// Who gets the owner's presence.
        Presence = "presence": "Contacts who see my presence",
        /// Who is in some groups of the owner's roster.
        Roster = "roster": "Contacts in some groups",
        /// Who is a member.
        Whitelist = "whitelist": "Only those listed",
        /// Who has asked to subscribe and was let.
        Authorize = "authorize": "Those whose subscription I have approved",
    }
}

choices! {
    /// Who may publish (§16.4.4, `pubsub#publish_model`).
    PublishModel {
        /// Owners and publishers.
        Publishers = "publishers": "Publishers",
        /// And subscribers.
        Subscribers = "subscribers": "Subscribers",
        /// Anybody who may subscribe.
        Open = "open": "Anyone",
    }
}

choices! {
    /// When the last item is sent by itself.
    SendLast {
        /// Not at all.
        Never = "never": "Never",
        /// To a new subscriber.
        OnSub = "on_sub": "When somebody subscribes",
        /// And to who comes online.
        OnSubAndPresence = "on_sub_and_presence": "When somebody subscribes or comes online",
    }
}

choices! {
    /// Type of the messages.
    NotificationType {
        /// As of people.
        Normal = "normal": "Normal messages",
        /// As of machines.
        Headline = "headline": "Headlines",
    }
}

/// `pubsub#max_items` when it is `max`: as many as the service lets a node have.
pub const ITEMS_MAX: u64 = u64::MAX;

/// The configuration of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    /// For people.
    pub title: String,
    /// For people.
    pub description: String,
    /// Of the payload: usually a namespace.
    #[serde(rename = "type")]
    pub payload_type: String,
    /// Who may read.
    pub access: AccessModel,
    /// For [`AccessModel::Roster`].
    pub roster_groups: Vec<String>,
    /// Who may publish.
    pub publish: PublishModel,
    /// Items are kept.
    pub persist: bool,
    /// How many; [`ITEMS_MAX`]: as many as may be.
    pub items_max: u64,
    /// When the last item is sent by itself.
    pub send_last: SendLast,
    /// Type of the messages.
    pub notification: NotificationType,
    /// They carry what was published.
    pub payloads: bool,
    /// There are any.
    pub notify: bool,
    /// Also when an item goes.
    pub notify_retract: bool,
    /// Also when the node goes.
    pub notify_delete: bool,
    /// Also when it is configured.
    pub notify_config: bool,
}

impl Default for Config {
    /// Of personal events (XEP-0163 §5).
    fn default() -> Self {
        Self {
            title: String::new(),
            description: String::new(),
            payload_type: String::new(),
            access: AccessModel::Presence,
            roster_groups: Vec::new(),
            publish: PublishModel::Publishers,
            persist: true,
            items_max: 1,
            send_last: SendLast::OnSubAndPresence,
            notification: NotificationType::Headline,
            payloads: true,
            notify: true,
            notify_retract: true,
            notify_delete: true,
            notify_config: false,
        }
    }
}

fn boolean(value: bool) -> &'static str {
    if value { "1" } else { "0" }
}

impl Config {
    /// Items that are kept, if the service lets a node have `cap`.
    pub fn items_kept(&self, cap: u64) -> u64 {
        if self.persist {
            self.items_max.min(cap)
        } else {
            0
        }
    }

    /// The fields of the form, as they are.
    fn fields(&self) -> Vec<Field> {
        fn list<V: Copy>(
            var: &str,
            label: &str,
            value: &str,
            all: &[(V, &'static str, &'static str)],
        ) -> Field {
            let field = Field::new(FieldType::ListSingle, var, label).with(value);
            all.iter().fold(field, |field, (_, word, label)| {
                field.offering(label, *word)
            })
        }
        let text = |var: &str, label: &str, value: &str| {
            let field = Field::new(FieldType::TextSingle, var, label);
            match value {
                "" => field,
                value => field.with(value),
            }
        };
        let yes = |var: &str, label: &str, value| {
            Field::new(FieldType::Boolean, var, label).with(boolean(value))
        };
        let items_max = match self.items_max {
            ITEMS_MAX => "max".to_owned(),
            n => n.to_string(),
        };
        let groups = Field::new(
            FieldType::TextMulti,
            "pubsub#roster_groups_allowed",
            "Groups of contacts",
        );
        let groups = self
            .roster_groups
            .iter()
            .fold(groups, |field, group| field.with(group.as_str()));
        vec![
            text("pubsub#title", "Title", &self.title),
            text("pubsub#description", "Description", &self.description),
            text(
                "pubsub#type",
                "Namespace of what is published",
                &self.payload_type,
            ),
            list(
                "pubsub#access_model",
                "Who may read",
                self.access.as_str(),
                AccessModel::ALL,
            ),
            groups,
            list(
                "pubsub#publish_model",
                "Who may publish",
                self.publish.as_str(),
                PublishModel::ALL,
            ),
            yes("pubsub#persist_items", "Keep items", self.persist),
            text("pubsub#max_items", "How many items are kept", &items_max),
            list(
                "pubsub#send_last_published_item",
                "When the last item is sent by itself",
                self.send_last.as_str(),
                SendLast::ALL,
            ),
            list(
                "pubsub#notification_type",
                "Type of messages",
                self.notification.as_str(),
                NotificationType::ALL,
            ),
            yes(
                "pubsub#deliver_notifications",
                "Tell subscribers",
                self.notify,
            ),
            yes(
                "pubsub#deliver_payloads",
                "Send what was published along",
                self.payloads,
            ),
            yes(
                "pubsub#notify_retract",
                "Tell when an item goes",
                self.notify_retract,
            ),
            yes(
                "pubsub#notify_delete",
                "Tell when the node goes",
                self.notify_delete,
            ),
            yes(
                "pubsub#notify_config",
                "Tell when the node is configured",
                self.notify_config,
            ),
        ]
    }

    /// The form to be filled in, or the configuration that is told with [`FormType::Result`].
    pub fn form(&self, kind: FormType) -> Node {
        let mut form = Form::of_type(kind, ns::PUBSUB_NODE_CONFIG);
        form.fields.extend(self.fields());
        form.to_node()
    }

    /// What is told of a node in `disco#info` (§5.4).
    pub fn meta_data(&self, owner: &str, created: &str) -> Node {
        let told = [
            "pubsub#title",
            "pubsub#description",
            "pubsub#type",
            "pubsub#access_model",
            "pubsub#publish_model",
            "pubsub#max_items",
        ];
        let mut form = Form::of_type(FormType::Result, ns::PUBSUB_META_DATA);
        let fields = self.fields().into_iter();
        let fields = fields.filter(|f| told.contains(&&*f.var) && !f.values.is_empty());
        form.fields.extend(fields.map(|field| Field {
            options: Vec::new(),
            ..field
        }));
        let owner = Field::new(FieldType::JidMulti, "pubsub#owner", "Owner").with(owner);
        let created =
            Field::new(FieldType::TextSingle, "pubsub#creation_date", "Made").with(created);
        form.with(owner).with(created).to_node()
    }

    /// With what a filled-in form says; what it does not name stays as it is (§8.2.4).
    ///
    /// # Errors
    /// `not-acceptable` (§8.2.5.3) for a field that is unknown or has an impossible value.
    pub fn with_form(&self, form: &Form) -> Result<Self, Refusal> {
        let mut config = self.clone();
        for field in &form.fields {
            config.set(field)?;
        }
        Ok(config)
    }

    /// Whether every field of `publish-options` is as the node has it (§7.1.5).
    pub fn meets(&self, options: &Form, cap: u64) -> bool {
        let Ok(wanted) = self.with_form(options) else {
            return false;
        };
        let kept = |config: &Config| config.items_max.min(cap);
        kept(self) == kept(&wanted)
            && Self {
                items_max: self.items_max,
                ..wanted
            } == *self
    }

    fn set(&mut self, field: &Field) -> Result<(), Refusal> {
        let wrong = || {
            let text = format!("{:?} of {} is impossible here", field.value(), field.var);
            Refusal::saying(StanzaError::NotAcceptable, text)
        };
        let value = field.value().trim();
        let text = |to: &mut String| {
            if value.len() > TEXT_BYTES_MAX {
                return Err(wrong());
            }
            value.clone_into(to);
            Ok(())
        };
        let yes = |to: &mut bool| {
            *to = match value {
                "1" | "true" => true,
                "0" | "false" => false,
                _ => return Err(wrong()),
            };
            Ok(())
        };
        match field.var.as_str() {
            "FORM_TYPE" => Ok(()),
            "pubsub#title" => text(&mut self.title),
            "pubsub#description" => text(&mut self.description),
            "pubsub#type" => text(&mut self.payload_type),
            "pubsub#persist_items" => yes(&mut self.persist),
            "pubsub#deliver_notifications" => yes(&mut self.notify),
            "pubsub#deliver_payloads" => yes(&mut self.payloads),
            "pubsub#notify_retract" => yes(&mut self.notify_retract),
            "pubsub#notify_delete" => yes(&mut self.notify_delete),
            "pubsub#notify_config" => yes(&mut self.notify_config),
            "pubsub#access_model" => {
                self.access = AccessModel::of(value).ok_or_else(wrong)?;
                Ok(())
            }
            "pubsub#publish_model" => {
                self.publish = PublishModel::of(value).ok_or_else(wrong)?;
                Ok(())
            }
            "pubsub#send_last_published_item" => {
                self.send_last = SendLast::of(value).ok_or_else(wrong)?;
                Ok(())
            }
            "pubsub#notification_type" => {
                self.notification = NotificationType::of(value).ok_or_else(wrong)?;
                Ok(())
            }
            "pubsub#max_items" => {
                self.items_max = match value {
                    "max" => ITEMS_MAX,
                    // An empty node is no node. What is more than a node may have is as good as that.
                    n => n.parse::<u64>().ok().filter(|n| *n > 0).ok_or_else(wrong)?,
                };
                Ok(())
            }
            "pubsub#roster_groups_allowed" => {
                let groups = field.values.iter().filter(|g| !g.is_empty());
                let groups: Vec<String> = groups.cloned().collect();
                let long = groups.iter().any(|g| g.len() > TEXT_BYTES_MAX);
                if long || groups.len() > ROSTER_GROUPS_MAX {
                    return Err(wrong());
                }
                self.roster_groups = groups;
                Ok(())
            }
            var => {
                let text = format!("{var:?} is nothing that a node has here");
                Err(Refusal::saying(StanzaError::NotAcceptable, text))
            }
        }
    }
}
