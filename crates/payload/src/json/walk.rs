//! Core: a walk through the tree of one JSON row, which gives its values their names, times and tags.

use alloc::string::String;
use alloc::vec::Vec;

use headwater_proto::time::UnixMicros;

use super::rows::{Draft, Rows, Scope, TagSet};
use super::tree::{Kind, Node};
use crate::part::Cause;
use crate::text::Span;
use crate::time;
use crate::{MAX_DEVICE_BYTES, MAX_METRIC_BYTES, MAX_TAG_BYTES, MAX_TAGS, Rules, TimeRule};

/// Members that name an element of an array, the first that fits.
const NAME_KEYS: [&str; 5] = ["n", "id", "name", "tag", "metric"];
/// Members that hold the value of a named element, the first that is there.
const VALUE_KEYS: [&str; 4] = ["v", "value", "vb", "vs"];
/// Members that hold the unit of a named element, the first that is there.
const UNIT_KEYS: [&str; 3] = ["u", "unit", "units"];
/// Members that say how good the value of a named element is; they become its tags.
const QUALITY_KEYS: [&str; 2] = ["q", "quality"];

/// A member that spoils the object it stands in, and why.
type Fault = (u32, Cause);

/// Finds everything that the object at the root of the tree holds, which may be an element of an array.
pub(super) fn collect(rows: &mut Rows, bytes: &[u8], rules: &Rules<'_>, is_element: bool) {
    rows.clear();
    Walk::new(bytes, rules, rows).root(is_element);
    rows.refuse_repeated();
}

/// The walk.
struct Walk<'w> {
    bytes: &'w [u8],
    rules: &'w Rules<'w>,
    /// The name of where the walk is.
    name: String,
    rows: &'w mut Rows,
}

impl<'w> Walk<'w> {
    fn new(bytes: &'w [u8], rules: &'w Rules<'w>, rows: &'w mut Rows) -> Self {
        Self {
            bytes,
            rules,
            name: String::from(rules.prefix),
            rows,
        }
    }

    /// Walks through the whole row, which may be an element of an array.
    fn root(&mut self, is_element: bool) {
        if self.rules.devices {
            self.each(0, |walk, member, node| walk.device(member, node));
        } else {
            self.row(0, Scope::default(), is_element);
        }
    }

    fn row(&mut self, at: u32, scope: Scope, is_element: bool) {
        if is_element
            && self.value_key(at).is_some()
            && let Some(name) = self.name_of(at)
            && let Some(word) = self.word_of(name)
        {
            self.element(at, name, word, scope);
        } else {
            self.object(at, scope, true);
        }
    }

    /// Visits the members or elements of a node in order.
    fn each(&mut self, node: u32, mut visit: impl FnMut(&mut Self, u32, Node)) {
        let mut next = self.rows.tree.node(node).first;
        while let Some(child) = self.rows.tree.nodes.get(next as usize).copied() {
            let at = core::mem::replace(&mut next, child.next);
            visit(self, at, child);
        }
    }

    /// A member of a message by devices.
    fn device(&mut self, member: u32, node: Node) {
        let device = node.key.of(&self.rows.tree.words);
        let is_id =
            (1..=MAX_DEVICE_BYTES).contains(&device.len()) && !device.chars().any(char::is_control);
        let scope = Scope {
            device: Some(node.key),
            ..Scope::default()
        };
        if !is_id {
            self.refuse(member, (member, Cause::Device), scope);
        } else if node.kind == Kind::Array {
            self.each(member, |walk, element, _| {
                walk.device_row(element, scope, true)
            });
        } else {
            self.device_row(member, scope, false);
        }
    }

    fn device_row(&mut self, at: u32, scope: Scope, is_element: bool) {
        let kind = self.rows.tree.node(at).kind;
        if kind == Kind::Object {
            self.row(at, scope, is_element);
        } else if kind == Kind::Missing {
            self.rows.missing += 1;
        } else {
            self.refuse(at, (at, Cause::NotAnObject), scope);
        }
    }

    /// `opens`: a time and tags are looked for, as in a message or an element of an array.
    fn object(&mut self, at: u32, scope: Scope, opens: bool) {
        if !(opens || self.holds_values(at)) {
            return self.members(at, scope, "");
        }
        match self.open(at, scope, false) {
            Ok(inner) => self.members(at, inner, ""),
            Err(fault) => self.refuse(at, fault, scope),
        }
    }

    /// Reads the members of an object. One called `value_key` adds nothing to the name.
    fn members(&mut self, at: u32, scope: Scope, value_key: &str) {
        let unit = if value_key.is_empty() {
            None
        } else {
            self.unit_of(at)
        };
        self.each(at, |walk, member, node| {
            let key = node.key;
            let words = &walk.rows.tree.words;
            if !value_key.is_empty() && key.of(words) == value_key {
                walk.value(member, scope, unit);
            } else if walk.adds_no_name(member, node) {
                walk.value(member, scope, None);
            } else {
                walk.named(key, |walk| walk.value(member, scope, None));
            }
        });
    }

    /// Adds a word to the name for as long as `work` takes.
    fn named(&mut self, word: Span, work: impl FnOnce(&mut Self)) {
        let len = self.name.len();
        if len > 0 {
            self.name.push('.');
        }
        self.name.push_str(word.of(&self.rows.tree.words));
        work(self);
        self.name.truncate(len);
    }

    fn value(&mut self, at: u32, scope: Scope, unit: Option<Span>) {
        let len = self.name.len();
        match self.rows.tree.node(at).kind {
            Kind::Consumed => {}
            Kind::Missing => self.rows.missing += 1,
            Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) if len == 0 => {
                self.refuse(at, (at, Cause::Name(0)), scope);
            }
            _ if len > MAX_METRIC_BYTES => self.refuse(at, (at, Cause::Name(len)), scope),
            Kind::Object => self.object(at, scope, false),
            Kind::Array => self.array(at, scope),
            Kind::Refused(cause) => self.refuse(at, (at, cause), scope),
            Kind::Bool(_) | Kind::Number(_) | Kind::Text(_) => {
                let names = &mut self.rows.names;
                let start = names.len();
                names.push_str(&self.name);
                let name = Span::new(start, names.len());
                self.rows.drafts.push(Draft {
                    node: at,
                    fault: at,
                    name,
                    scope,
                    unit,
                    refused: None,
                });
            }
        }
    }

    fn array(&mut self, at: u32, scope: Scope) {
        let is_named = self.has_named_elements(at);
        self.each(at, |walk, element, node| {
            if is_named
                && let Some(name) = walk.name_of(element)
                && let Some(word) = walk.word_of(name)
            {
                return walk.element(element, name, word, scope);
            }
            let word = walk.rows.tree.add_word(format_args!("{}", node.index));
            walk.named(word, |walk| {
                if node.kind == Kind::Object && walk.name.len() <= MAX_METRIC_BYTES {
                    walk.object(element, scope, true);
                } else {
                    walk.value(element, scope, None);
                }
            });
        });
    }

    /// An element that is called `word`, as its member `name` says.
    fn element(&mut self, at: u32, name: u32, word: Span, scope: Scope) {
        let value_key = self.value_key(at);
        self.consume(name);
        let inner = match self.open(at, scope, true) {
            Ok(inner) => self.with_quality(at, inner),
            Err(fault) => return self.refuse(at, fault, scope),
        };
        if value_key.is_none() {
            self.rows.missing += 1;
        }
        self.named(word, |walk| {
            walk.members(at, inner, value_key.unwrap_or_default())
        });
    }

    /// The scope of an object: its time and tags are taken out of it.
    fn open(&mut self, at: u32, scope: Scope, is_named: bool) -> Result<Scope, Fault> {
        let mut scope = scope;
        if let Some((member, time)) = self.time_of(at, is_named)? {
            self.consume(member);
            scope.time = Some(time);
        }
        if let Some(key) = self.rules.tags
            && let Some(tags) = self.only_member(at, key)?
            && self.rows.tree.node(tags).kind == Kind::Object
        {
            scope.tags = self.read_tags(tags, scope.tags)?;
            self.consume(tags);
        }
        Ok(scope)
    }

    fn time_of(&self, at: u32, is_named: bool) -> Result<Option<(u32, UnixMicros)>, Fault> {
        let (name, format, zone) = match self.rules.time {
            TimeRule::Ignore => return Ok(None),
            TimeRule::Auto => return self.guess_time(at, is_named),
            TimeRule::Key { name, format, zone } => (name, format, zone),
        };
        let Some(member) = self.way(at, name)? else {
            return Ok(None);
        };
        if self.rows.tree.node(member).kind == Kind::Missing {
            return Ok(None);
        }
        self.scalar(member)
            .ok_or(Cause::Not("a time"))
            .and_then(|text| time::read(text, format, zone))
            .map(|time| Some((member, time)))
            .map_err(|cause| (member, cause))
    }

    fn guess_time(&self, at: u32, is_named: bool) -> Result<Option<(u32, UnixMicros)>, Fault> {
        let tree = &self.rows.tree;
        let more: &[&str] = if is_named { &["t"] } else { &[] };
        let mut best: Option<(usize, u32, UnixMicros)> = None;
        let mut second = None;
        for member in tree.children(at) {
            let Some((rank, unit)) = time::key(tree.key(member), more) else {
                continue;
            };
            let Some(time) = self.scalar(member).and_then(|text| time::guess(text, unit)) else {
                continue;
            };
            match best {
                Some((known, ..)) if known < rank => {}
                Some((known, other, _)) if known == rank => {
                    if tree.key(other) == tree.key(member) {
                        second = Some(member);
                    }
                }
                _ => (best, second) = (Some((rank, member, time)), None),
            }
        }
        match second {
            Some(member) => Err((member, Cause::TwoOfOneName)),
            None => Ok(best.map(|(_, member, time)| (member, time))),
        }
    }

    /// The member of a name, or at the end of a way through objects.
    fn way(&self, at: u32, name: &str) -> Result<Option<u32>, Fault> {
        if let Some(member) = self.only_member(at, name)? {
            return Ok(Some(member));
        }
        let Some((first, rest)) = name.split_once('.') else {
            return Ok(None);
        };
        match self.only_member(at, first)? {
            Some(member) => self.way(member, rest),
            None => Ok(None),
        }
    }

    fn read_tags(&mut self, object: u32, below: usize) -> Result<usize, Fault> {
        let from = self.rows.tags.len();
        let members: Vec<u32> = self.rows.tree.children(object).collect();
        for member in members {
            let node = self.rows.tree.node(member);
            if node.kind == Kind::Missing {
                continue;
            }
            let value = self.word_of(member);
            let value = value.ok_or((member, Cause::Not("a text, a number or a truth value")))?;
            let words = &self.rows.tree.words;
            let (key, value_len) = (node.key.of(words), value.of(words).len());
            let total = self.rows.sets[below].total + self.rows.tags.len() - from;
            let repeats = |tag: &(Span, Span)| tag.0.of(words) == key;
            let cause = if key.is_empty() || key.len().max(value_len) > MAX_TAG_BYTES {
                Some(Cause::Tag {
                    key: key.len(),
                    value: value_len,
                })
            } else if total == MAX_TAGS {
                Some(Cause::Tags)
            } else {
                let twice = self.rows.tags[from..].iter().any(repeats);
                twice.then_some(Cause::TwoTags)
            };
            if let Some(cause) = cause {
                return Err((member, cause));
            }
            self.rows.tags.push((node.key, value));
        }
        Ok(self.push_set(below, from))
    }

    /// Makes a set of the tags from `from` on, on top of another.
    fn push_set(&mut self, parent: usize, from: usize) -> usize {
        let to = self.rows.tags.len();
        let total = self.rows.sets[parent].total + to - from;
        self.rows.sets.push(TagSet {
            parent,
            from,
            to,
            total,
        });
        self.rows.sets.len() - 1
    }

    /// The quality of a named element becomes a tag. One that is too long stays a value.
    fn with_quality(&mut self, at: u32, scope: Scope) -> Scope {
        let mut scope = scope;
        let from = self.rows.tags.len();
        for key in QUALITY_KEYS {
            let Some(member) = self.member(at, key) else {
                continue;
            };
            let Some(word) = self.word_of(member) else {
                continue;
            };
            let total = self.rows.sets[scope.tags].total + self.rows.tags.len() - from;
            if word.of(&self.rows.tree.words).len() <= MAX_TAG_BYTES && total < MAX_TAGS {
                self.consume(member);
                let key = self.rows.tree.node(member).key;
                self.rows.tags.push((key, word));
            }
        }
        if self.rows.tags.len() > from {
            scope.tags = self.push_set(scope.tags, from);
        }
        scope
    }

    /// The unit of a named element is taken out of it. One that is too long stays a value.
    fn unit_of(&mut self, at: u32) -> Option<Span> {
        let member = UNIT_KEYS.iter().find_map(|key| self.member(at, key))?;
        let Kind::Text(unit) = self.rows.tree.node(member).kind else {
            return None;
        };
        if unit.of(&self.rows.tree.words).len() > MAX_METRIC_BYTES {
            return None;
        }
        self.consume(member);
        Some(unit)
    }

    fn has_named_elements(&self, array: u32) -> bool {
        self.rows
            .tree
            .children(array)
            .any(|element| self.name_of(element).is_some() && self.value_key(element).is_some())
    }

    /// The name of the member that holds an element's value.
    fn value_key(&self, element: u32) -> Option<&'static str> {
        let has = |key: &&str| self.member(element, key).is_some();
        VALUE_KEYS.into_iter().find(has)
    }

    /// The member that names an element: a text, or else a whole number.
    fn name_of(&self, element: u32) -> Option<u32> {
        let tree = &self.rows.tree;
        if tree.node(element).kind != Kind::Object {
            return None;
        }
        let named = |fits: &dyn Fn(Node) -> bool| {
            NAME_KEYS.iter().find_map(|key| {
                let mut members = tree.children(element);
                members.find(|at| tree.key(*at) == *key && fits(tree.node(*at)))
            })
        };
        let is_text =
            |node: Node| matches!(node.kind, Kind::Text(text) if !text.of(&tree.words).is_empty());
        let is_whole = |node: Node| {
            matches!(node.kind, Kind::Number(_))
                && node.written(self.bytes).iter().all(u8::is_ascii_digit)
        };
        named(&is_text).or_else(|| named(&is_whole))
    }

    fn member(&self, at: u32, name: &str) -> Option<u32> {
        let tree = &self.rows.tree;
        tree.children(at).find(|member| tree.key(*member) == name)
    }

    /// The member of a name.
    ///
    /// # Errors
    /// There are two.
    fn only_member(&self, at: u32, name: &str) -> Result<Option<u32>, Fault> {
        let tree = &self.rows.tree;
        let mut members = tree.children(at).filter(|member| tree.key(*member) == name);
        let first = members.next();
        match members.next() {
            Some(second) => Err((second, Cause::TwoOfOneName)),
            None => Ok(first),
        }
    }

    fn holds_values(&self, at: u32) -> bool {
        let tree = &self.rows.tree;
        let values = self
            .member(at, "values")
            .map(|member| tree.node(member).kind);
        matches!(values, Some(Kind::Object | Kind::Array))
    }

    fn adds_no_name(&self, at: u32, node: Node) -> bool {
        !self.rules.keep_values
            && self.rows.tree.key(at) == "values"
            && (node.kind == Kind::Object
                || (node.kind == Kind::Array && self.has_named_elements(at)))
    }

    /// A text, or a number as it is written.
    fn scalar(&self, at: u32) -> Option<&str> {
        let node = self.rows.tree.node(at);
        if let Kind::Text(text) = node.kind {
            return Some(text.of(&self.rows.tree.words));
        }
        matches!(node.kind, Kind::Number(_))
            .then(|| core::str::from_utf8(node.written(self.bytes)).ok())
            .flatten()
    }

    /// A text, a number or a truth value, as one of the tree's words.
    fn word_of(&mut self, at: u32) -> Option<Span> {
        let node = self.rows.tree.node(at);
        match node.kind {
            Kind::Text(text) => Some(text),
            Kind::Number(_) | Kind::Bool(_) => {
                let written = core::str::from_utf8(node.written(self.bytes)).ok()?;
                Some(self.rows.tree.add_word(format_args!("{written}")))
            }
            Kind::Missing | Kind::Object | Kind::Array | Kind::Refused(_) | Kind::Consumed => None,
        }
    }

    fn consume(&mut self, at: u32) {
        self.rows.tree.nodes[at as usize].kind = Kind::Consumed;
    }

    /// Refuses a value, or a whole object for one of its members.
    fn refuse(&mut self, at: u32, (fault, cause): Fault, scope: Scope) {
        self.rows.drafts.push(Draft {
            node: at,
            fault,
            name: Span::default(),
            scope,
            unit: None,
            refused: Some(cause),
        });
    }
}
