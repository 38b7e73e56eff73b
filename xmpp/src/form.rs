//! Data forms, XEP-0004 (`jabber:x:data`): built, parsed, and an answer checked against the form it answers.
//!
//! In: a checked tree, or fields. Out: a [`Form`], a [`Node`], or what is wrong with an answer in words for the person.
//! Never: believes a type that a submitted field claims: the types are those of the form that was offered.

use crate::jid::Jid;
use crate::node::Node;
use crate::ns;
use std::fmt;

/// Fields of one form: the longest of XEP-0133 has a dozen, a room's configuration about fifty.
pub const FIELDS_MAX: usize = 128;
/// Values of all fields of one form. One line of a text is one value, so this is also the longest text.
pub const VALUES_MAX: usize = 4_096;
/// Options a list offers, and items of a result, that are read from a form of somebody else's.
pub const ITEMS_MAX: usize = 1_024;

/// What a form is for (§3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FormType {
    /// To be filled in.
    Form,
    /// Filled in.
    Submit,
    /// Given up.
    Cancel,
    /// Data to be shown.
    Result,
}

impl FormType {
    const ALL: [FormType; 4] = [Self::Form, Self::Submit, Self::Cancel, Self::Result];

    /// As in the attribute `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Form => "form",
            Self::Submit => "submit",
            Self::Cancel => "cancel",
            Self::Result => "result",
        }
    }
}

/// What a field takes (§3.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldType {
    /// Yes or no.
    Boolean,
    /// A text to be read, not filled in.
    Fixed,
    /// Goes back as it came.
    Hidden,
    /// Addresses, each once.
    JidMulti,
    /// An address.
    JidSingle,
    /// Some of the options.
    ListMulti,
    /// One of the options.
    ListSingle,
    /// Lines.
    TextMulti,
    /// A line that is not shown.
    TextPrivate,
    /// A line.
    TextSingle,
}

impl FieldType {
    const ALL: [FieldType; 10] = [
        Self::Boolean,
        Self::Fixed,
        Self::Hidden,
        Self::JidMulti,
        Self::JidSingle,
        Self::ListMulti,
        Self::ListSingle,
        Self::TextMulti,
        Self::TextPrivate,
        Self::TextSingle,
    ];

    /// As in the attribute `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Fixed => "fixed",
            Self::Hidden => "hidden",
            Self::JidMulti => "jid-multi",
            Self::JidSingle => "jid-single",
            Self::ListMulti => "list-multi",
            Self::ListSingle => "list-single",
            Self::TextMulti => "text-multi",
            Self::TextPrivate => "text-private",
            Self::TextSingle => "text-single",
        }
    }

    fn many(self) -> bool {
        matches!(
            self,
            Self::JidMulti | Self::ListMulti | Self::TextMulti | Self::Hidden
        )
    }
}

/// One choice of a list (§3.4).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// For people.
    pub label: Option<String>,
    /// What goes back.
    pub value: String,
}

/// One field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its name. Empty only for [`FieldType::Fixed`].
    pub var: String,
    /// What it takes. A submitted field need not say; it reads as `TextSingle` then (§3.3).
    pub kind: FieldType,
    /// For people.
    pub label: Option<String>,
    /// Must be filled in.
    pub required: bool,
    /// What is in it, or what it takes if nobody changes it.
    pub values: Vec<String>,
    /// What a list offers.
    pub options: Vec<Choice>,
}

impl Field {
    /// An empty one. The label may be empty: none.
    pub fn new(kind: FieldType, var: impl Into<String>, label: &str) -> Self {
        Self {
            var: var.into(),
            kind,
            label: (!label.is_empty()).then(|| label.to_owned()),
            required: false,
            values: Vec::new(),
            options: Vec::new(),
        }
    }

    /// One that must be filled in.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// With one more value.
    pub fn with(mut self, value: impl Into<String>) -> Self {
        self.values.push(value.into());
        self
    }

    /// With one more choice; the label may be empty: none.
    pub fn offering(mut self, label: &str, value: impl Into<String>) -> Self {
        self.options.push(Choice {
            label: (!label.is_empty()).then(|| label.to_owned()),
            value: value.into(),
        });
        self
    }

    /// The first value, or nothing.
    pub fn value(&self) -> &str {
        self.values.first().map_or("", String::as_str)
    }

    fn to_node(&self, with_type: bool) -> Node {
        let value = |text: &String| Node::new("value", ns::DATA_FORMS).with_text(text.as_str());
        Node::new("field", ns::DATA_FORMS)
            .with_attr_opt("var", Some(self.var.as_str()).filter(|v| !v.is_empty()))
            .with_attr_opt("type", with_type.then_some(self.kind.as_str()))
            .with_attr_opt("label", self.label.as_deref())
            .with_children(self.required.then(|| Node::new("required", ns::DATA_FORMS)))
            .with_children(self.values.iter().map(value))
            .with_children(self.options.iter().map(|o| {
                Node::new("option", ns::DATA_FORMS)
                    .with_attr_opt("label", o.label.as_deref())
                    .with_child(value(&o.value))
            }))
    }
}

/// One row of a result with several: values by field name.
pub type Item = Vec<(String, Vec<String>)>;

/// A form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Form {
    /// What for.
    pub kind: FormType,
    /// For people.
    pub title: Option<String>,
    /// For people.
    pub instructions: Option<String>,
    /// The fields, `FORM_TYPE` among them.
    pub fields: Vec<Field>,
    /// Columns of the items (§3.5).
    pub reported: Vec<Field>,
    /// Rows (§3.5).
    pub items: Vec<Item>,
}

/// Why a form is not one, or an answer does not fit it. The text may be shown to who wrote it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormError {
    /// Not `<x xmlns='jabber:x:data'/>`, or without one of the four types.
    #[error("this is no data form")]
    NoForm,
    /// More of something than any form has.
    #[error("the form has too many {0}")]
    TooMany(&'static str),
    /// Two fields of one name.
    #[error("the field {0:?} is there twice")]
    Twice(String),
    /// For something else.
    #[error("the form is not for {0}")]
    WrongFormType(String),
    /// Not filled in.
    #[error("{0} is missing")]
    Missing(String),
    /// Several values where one fits.
    #[error("{0} takes one value")]
    OneOnly(String),
    /// Not what the field takes.
    #[error("{0} is not {1}")]
    Wrong(String, &'static str),
}

impl Form {
    /// An empty one.
    pub fn new(kind: FormType) -> Self {
        Self {
            kind,
            title: None,
            instructions: None,
            fields: Vec::new(),
            reported: Vec::new(),
            items: Vec::new(),
        }
    }

    /// An empty one with its `FORM_TYPE` (XEP-0068).
    pub fn of_type(kind: FormType, form_type: &str) -> Self {
        Self::new(kind).with(Field::new(FieldType::Hidden, "FORM_TYPE", "").with(form_type))
    }

    /// With words for people.
    pub fn titled(mut self, title: &str, instructions: &str) -> Self {
        let text = |t: &str| (!t.is_empty()).then(|| t.to_owned());
        (self.title, self.instructions) = (text(title), text(instructions));
        self
    }

    /// With one more field.
    pub fn with(mut self, field: Field) -> Self {
        self.fields.push(field);
        self
    }

    /// With one more column of items.
    pub fn reporting(mut self, kind: FieldType, var: &str, label: &str) -> Self {
        self.reported.push(Field::new(kind, var, label));
        self
    }

    /// Its `FORM_TYPE` (XEP-0068).
    pub fn form_type(&self) -> Option<&str> {
        self.field("FORM_TYPE").map(Field::value)
    }

    /// The field of this name.
    pub fn field(&self, var: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.var == var)
    }

    /// The first value of a field, if it has one that is not empty.
    pub fn value(&self, var: &str) -> Option<&str> {
        self.field(var).map(Field::value).filter(|v| !v.is_empty())
    }

    /// All values of a field.
    pub fn values(&self, var: &str) -> &[String] {
        self.field(var).map_or(&[], |f| &f.values)
    }

    /// As it is sent. A submitted form says no types (§3.3: they need not be repeated).
    pub fn to_node(&self) -> Node {
        let text = |name: &'static str, text: &Option<String>| {
            text.as_ref()
                .map(|t| Node::new(name, ns::DATA_FORMS).with_text(t.as_str()))
        };
        let types = self.kind != FormType::Submit;
        let reported = (!self.reported.is_empty()).then(|| {
            Node::new("reported", ns::DATA_FORMS)
                .with_children(self.reported.iter().map(|f| f.to_node(true)))
        });
        let item = |item: &Item| {
            Node::new("item", ns::DATA_FORMS).with_children(item.iter().map(|(var, values)| {
                let mut field = Field::new(FieldType::TextSingle, var.as_str(), "");
                field.values.clone_from(values);
                field.to_node(false)
            }))
        };
        Node::new("x", ns::DATA_FORMS)
            .with_attr("type", self.kind.as_str())
            .with_children(text("title", &self.title))
            .with_children(text("instructions", &self.instructions))
            .with_children(self.fields.iter().map(|f| f.to_node(types)))
            .with_children(reported)
            .with_children(self.items.iter().map(item))
    }

    /// Reads one. What is no part of a form is passed over (§3: forms may carry other things).
    ///
    /// # Errors
    /// See [`FormError`]; a field without a name that is not `fixed` is passed over.
    pub fn parse(x: &Node) -> Result<Self, FormError> {
        let kind = FormType::ALL
            .into_iter()
            .find(|k| x.attr("type") == Some(k.as_str()))
            .filter(|_| x.is("x", ns::DATA_FORMS))
            .ok_or(FormError::NoForm)?;
        let text = |name| {
            x.child(name, ns::DATA_FORMS)
                .map(|n| n.text().into_owned())
                .filter(|t| !t.is_empty())
        };
        let mut values = 0;
        let mut form = Form::new(kind);
        form.title = text("title");
        form.instructions = text("instructions");
        form.fields = fields(x, &mut values)?;
        if let Some(reported) = x.child("reported", ns::DATA_FORMS) {
            form.reported = fields(reported, &mut values)?;
        }
        for item in x.children().filter(|c| c.is("item", ns::DATA_FORMS)) {
            if form.items.len() == ITEMS_MAX {
                return Err(FormError::TooMany("items"));
            }
            let fields = fields(item, &mut values)?;
            form.items
                .push(fields.into_iter().map(|f| (f.var, f.values)).collect());
        }
        Ok(form)
    }

    /// Checks a submitted form against this one: every field of ours, with the values that were given, or its own
    /// where none were, of the right kind. Fields that were not asked for are left out (§3.2: ignored).
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn check(&self, answer: &Form) -> Result<Form, FormError> {
        if let (Some(ours), Some(theirs)) = (self.form_type(), answer.form_type())
            && ours != theirs
        {
            return Err(FormError::WrongFormType(theirs.to_owned()));
        }
        let mut checked = Form::new(FormType::Submit);
        for ours in &self.fields {
            let mut field = ours.clone();
            let given = answer.field(&ours.var);
            if let (Some(given), false) = (given, ours.var.is_empty() || ours.var == "FORM_TYPE") {
                field.values.clone_from(&given.values);
            }
            if ours.kind != FieldType::Fixed {
                check(&mut field)?;
                checked.fields.push(field);
            }
        }
        Ok(checked)
    }
}

/// How a field is called in an error.
fn called(field: &Field) -> String {
    field.label.clone().unwrap_or_else(|| field.var.clone())
}

fn check(field: &mut Field) -> Result<(), FormError> {
    // A client that sends an empty value for a field left empty means: nothing.
    if field.kind != FieldType::TextMulti && field.kind != FieldType::Hidden {
        field.values.retain(|v| !v.is_empty());
    }
    if field.values.len() > 1 && !field.kind.many() {
        return Err(FormError::OneOnly(called(field)));
    }
    if field.required && field.values.iter().all(String::is_empty) {
        return Err(FormError::Missing(called(field)));
    }
    for value in &mut field.values {
        let wrong = match field.kind {
            FieldType::Boolean => match value.as_str() {
                "1" | "true" => {
                    "true".clone_into(value);
                    None
                }
                "0" | "false" => {
                    "false".clone_into(value);
                    None
                }
                _ => Some("yes or no"),
            },
            FieldType::JidMulti | FieldType::JidSingle => match Jid::parse(value) {
                // In the prepared form, so that two spellings of one address are one.
                Ok(jid) => {
                    jid.as_str().clone_into(value);
                    None
                }
                Err(_) => Some("an address"),
            },
            FieldType::ListMulti | FieldType::ListSingle => {
                let offered = field.options.iter().any(|o| o.value == *value);
                (!offered).then_some("one of the choices")
            }
            _ => None,
        };
        if let Some(wrong) = wrong {
            let name = field.label.clone().unwrap_or_else(|| field.var.clone());
            return Err(FormError::Wrong(name, wrong));
        }
    }
    if field.kind == FieldType::JidMulti {
        // §3.3: each once.
        let mut seen = std::collections::BTreeSet::new();
        field.values.retain(|v| seen.insert(v.clone()));
    }
    Ok(())
}

fn fields(parent: &Node, values: &mut usize) -> Result<Vec<Field>, FormError> {
    let mut fields: Vec<Field> = Vec::new();
    let mut names = std::collections::HashSet::new();
    for node in parent.children().filter(|c| c.is("field", ns::DATA_FORMS)) {
        if fields.len() == FIELDS_MAX {
            return Err(FormError::TooMany("fields"));
        }
        let kind = FieldType::ALL
            .into_iter()
            .find(|k| node.attr("type") == Some(k.as_str()))
            .unwrap_or(FieldType::TextSingle);
        let var = node.attr("var").unwrap_or_default();
        if var.is_empty() && kind != FieldType::Fixed {
            continue;
        }
        if !var.is_empty() && !names.insert(var) {
            return Err(FormError::Twice(var.to_owned()));
        }
        let mut field = Field::new(kind, var, node.attr("label").unwrap_or_default());
        field.required = node.child("required", ns::DATA_FORMS).is_some();
        for child in node.children() {
            if child.is("value", ns::DATA_FORMS) {
                *values += 1;
                if *values > VALUES_MAX {
                    return Err(FormError::TooMany("values"));
                }
                field.values.push(child.text().into_owned());
            } else if child.is("option", ns::DATA_FORMS) {
                if field.options.len() == ITEMS_MAX {
                    return Err(FormError::TooMany("options"));
                }
                let value = child.child("value", ns::DATA_FORMS);
                field = field.offering(
                    child.attr("label").unwrap_or_default(),
                    value.map(|v| v.text().into_owned()).unwrap_or_default(),
                );
            }
        }
        fields.push(field);
    }
    Ok(fields)
}

impl fmt::Display for FormType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(xml: &str) -> Result<Form, FormError> {
        Form::parse(&Node::parse(xml.as_bytes(), "").expect("XML"))
    }

    fn offered() -> Form {
        Form::of_type(FormType::Form, "urn:example")
            .titled("Adding a user", "Fill in this form.")
            .with(Field::new(FieldType::JidSingle, "jid", "The address").required())
            .with(Field::new(FieldType::TextPrivate, "password", ""))
            .with(Field::new(FieldType::Boolean, "loud", "").with("false"))
            .with(Field::new(FieldType::Fixed, "", "").with("A text"))
            .with(Field::new(FieldType::JidMulti, "others", ""))
            .with(
                Field::new(FieldType::ListSingle, "max", "")
                    .offering("Some", "25")
                    .offering("", "all")
                    .with("25"),
            )
            .with(Field::new(FieldType::TextMulti, "lines", ""))
    }

    fn submit(fields: &str) -> Result<Form, FormError> {
        offered().check(&parse(&format!(
            "<x xmlns='jabber:x:data' type='submit'>{fields}</x>"
        ))?)
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let mut form = offered().reporting(FieldType::JidSingle, "who", "Who");
        form.items.push(vec![
            ("who".into(), vec!["a@b".into()]),
            ("n".into(), vec!["1 < 2".into(), "&".into()]),
        ]);
        assert_eq!(Form::parse(&form.to_node()), Ok(form.clone()));
        assert_eq!(form.form_type(), Some("urn:example"));
        let xml = form.to_node().to_string();
        assert!(
            xml.contains(
                "<field var='jid' type='jid-single' label='The address'><required/></field>"
            ),
            "{xml}"
        );
        assert!(xml.contains("<option label='Some'><value>25</value></option>"));
        // A submitted form repeats no types.
        let mut form = offered();
        form.kind = FormType::Submit;
        assert!(!form.to_node().to_string().contains("type='jid-single'"));
    }

    #[test]
    fn an_answer_is_completed_and_prepared() {
        let form = submit(
            "<field var='jid'><value>Alice@Example.ORG</value></field><field var='loud'><value>1</value></field>\
             <field var='others'><value>b@c</value><value/><value>B@c</value></field><field var='more'><value>x</value></field>\
             <field var='lines'><value>one</value><value></value><value>three</value></field>",
        )
        .unwrap();
        assert_eq!(form.value("jid"), Some("alice@example.org"));
        assert_eq!(form.value("loud"), Some("true"));
        assert_eq!(form.value("max"), Some("25"));
        assert_eq!(form.values("others"), ["b@c"]);
        assert_eq!(form.values("lines"), ["one", "", "three"]);
        assert_eq!(form.value("password"), None);
        assert_eq!(form.field("more"), None);
    }

    #[test]
    fn a_wrong_answer_is_named() {
        let jid = "<field var='jid'><value>a@b</value></field>";
        for (fields, wrong) in [
            (String::new(), "The address is missing"),
            (
                "<field var='jid'><value/></field>".into(),
                "The address is missing",
            ),
            (
                "<field var='jid'><value>@</value></field>".into(),
                "The address is not an address",
            ),
            (
                "<field var='jid'><value>a@b</value><value>c@d</value></field>".into(),
                "The address takes one value",
            ),
            (format!("{jid}{jid}"), "the field \"jid\" is there twice"),
            (
                format!("{jid}<field var='loud'><value>2</value></field>"),
                "loud is not yes or no",
            ),
            (
                format!("{jid}<field var='max'><value>26</value></field>"),
                "max is not one of the choices",
            ),
            (
                format!("{jid}<field var='FORM_TYPE'><value>urn:other</value></field>"),
                "the form is not for urn:other",
            ),
        ] {
            assert_eq!(submit(&fields).unwrap_err().to_string(), wrong, "{fields}");
        }
    }

    #[test]
    fn what_is_no_form_or_too_much_is_refused() {
        for xml in [
            "<x xmlns='jabber:x:data'/>",
            "<x xmlns='jabber:x:data' type='other'/>",
            "<x xmlns='other' type='form'/>",
            "<y xmlns='jabber:x:data' type='form'/>",
        ] {
            assert_eq!(parse(xml), Err(FormError::NoForm), "{xml}");
        }
        let form = |content: &str| {
            parse(&format!(
                "<x xmlns='jabber:x:data' type='form'>{content}</x>"
            ))
        };
        let fields = |n: usize| {
            (0..n)
                .map(|i| format!("<field var='{i}'/>"))
                .collect::<String>()
        };
        assert!(form(&fields(FIELDS_MAX)).is_ok());
        assert_eq!(
            form(&fields(FIELDS_MAX + 1)),
            Err(FormError::TooMany("fields"))
        );
        let values = |n: usize| format!("<field var='a'>{}</field>", "<value/>".repeat(n));
        assert!(form(&values(VALUES_MAX)).is_ok());
        assert_eq!(
            form(&values(VALUES_MAX + 1)),
            Err(FormError::TooMany("values"))
        );
        assert!(form(&"<item/>".repeat(ITEMS_MAX)).is_ok());
        assert_eq!(
            form(&"<item/>".repeat(ITEMS_MAX + 1)),
            Err(FormError::TooMany("items"))
        );
        let options = format!(
            "<field var='a'>{}</field>",
            "<option/>".repeat(ITEMS_MAX + 1)
        );
        assert_eq!(form(&options), Err(FormError::TooMany("options")));
    }
}
