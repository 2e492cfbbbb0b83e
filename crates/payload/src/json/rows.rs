//! Core: the samples and refusals of one JSON row, in the order of its values.

use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Ordering;

use headwater_proto::sample::Value;
use headwater_proto::time::UnixMicros;

use super::tree::{Kind, Node, Tree};
use crate::MAX_PLACE_BYTES;
use crate::out::{Full, Out};
use crate::part::{Cause, Place, Sample};
use crate::text::{Places, Span, reserved};

/// A row's tree and the drafts found in it. The buffers are kept between rows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(super) tree: Tree,
    /// Names of the drafts, one after another.
    pub(super) names: String,
    pub(super) drafts: Vec<Draft>,
    pub(super) tags: Vec<(Span, Span)>,
    pub(super) sets: Vec<TagSet>,
    pub(super) missing: u32,
    /// Indices of drafts, for a search of repeated names.
    order: Vec<usize>,
}

/// A sample or refusal that is about to be given.
#[derive(Debug, Clone, Copy)]
pub(super) struct Draft {
    /// The value, or the object that is refused.
    pub(super) node: u32,
    /// The member that the refusal points at.
    pub(super) fault: u32,
    pub(super) name: Span,
    pub(super) scope: Scope,
    pub(super) unit: Option<Span>,
    pub(super) refused: Option<Cause>,
}

/// Time, device and tags of everything in an object, unless an inner object has its own.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Scope {
    pub(super) time: Option<UnixMicros>,
    pub(super) device: Option<Span>,
    /// Its tags: a place in [`Rows::sets`].
    pub(super) tags: usize,
}

/// Tags on top of those of another set; the first set is empty.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TagSet {
    pub(super) parent: usize,
    pub(super) from: usize,
    pub(super) to: usize,
    /// How many tags it and those below it hold.
    pub(super) total: usize,
}

impl Rows {
    pub(crate) fn bytes(&self) -> usize {
        let Self {
            tree: Tree { nodes, words },
            names,
            drafts,
            tags,
            sets,
            missing: _,
            order,
        } = self;
        let values = reserved(nodes) + reserved(drafts) + reserved(order);
        words.capacity() + names.capacity() + values + reserved(tags) + reserved(sets)
    }

    /// Forgets the row before.
    pub(super) fn clear(&mut self) {
        self.names.clear();
        self.drafts.clear();
        self.tags.clear();
        self.sets.clear();
        self.sets.push(TagSet::default());
        self.missing = 0;
    }

    /// Hands the drafts over. `element`: the row's place in the array that holds it.
    pub(super) fn give(
        &self,
        element: Option<u32>,
        places: &mut Places<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Full> {
        out.has_room(self.drafts.len())?;
        out.missing(self.missing);
        let bytes = places.bytes();
        let mut tags: Vec<(&str, &str)> = Vec::new();
        let line = places.line(self.tree.node(0).from as usize);
        let mut row: Option<(u32, Scope)> = None;
        let mut path = String::new();
        for draft in &self.drafts {
            let value = match self.value(draft) {
                Ok(value) => value,
                Err(cause) => {
                    self.write_path(draft.fault, element, &mut path);
                    let place = Place::Path { line, path: &path };
                    let node = self.tree.node(draft.node);
                    out.refused(place, cause, &bytes[node.from as usize..node.to as usize]);
                    continue;
                }
            };
            let number = match row {
                Some((number, scope)) if self.is_same_row(scope, draft.scope) => number,
                _ => {
                    self.write_tags(draft.scope.tags, &mut tags);
                    out.begin_row()
                }
            };
            row = Some((number, draft.scope));
            out.sample(Sample {
                row: number,
                line,
                device: self.device(draft.scope),
                time: draft.scope.time,
                tags: &tags,
                metric: draft.name.of(&self.names),
                value,
                unit: draft.unit.map(|unit| unit.of(&self.tree.words)),
            });
        }
        Ok(())
    }

    fn value(&self, draft: &Draft) -> Result<Value<'_>, Cause> {
        if let Some(cause) = draft.refused {
            return Err(cause);
        }
        match self.tree.node(draft.node).kind {
            Kind::Bool(value) => Ok(Value::Bool(value)),
            Kind::Number(value) => Ok(value),
            Kind::Text(text) => Ok(Value::Str(text.of(&self.tree.words))),
            Kind::Refused(cause) => Err(cause),
            Kind::Missing | Kind::Object | Kind::Array | Kind::Consumed => Err(Cause::NotAnObject),
        }
    }

    /// Two samples of one name, time and series refuse each other.
    pub(super) fn refuse_repeated(&mut self) {
        let mut order = core::mem::take(&mut self.order);
        order.clear();
        order.extend((0..self.drafts.len()).filter(|at| self.value(&self.drafts[*at]).is_ok()));
        order.sort_unstable_by(|a, b| self.compare(&self.drafts[*a], &self.drafts[*b]));
        for pair in order.windows(2) {
            let (a, b) = (&self.drafts[pair[0]], &self.drafts[pair[1]]);
            if self.compare(a, b).is_eq() {
                for at in pair {
                    self.drafts[*at].refused = Some(Cause::TwoOfOneName);
                }
            }
        }
        self.order = order;
    }

    fn compare(&self, a: &Draft, b: &Draft) -> Ordering {
        (a.name.of(&self.names).cmp(b.name.of(&self.names)))
            .then_with(|| a.scope.time.cmp(&b.scope.time))
            .then_with(|| self.device(a.scope).cmp(&self.device(b.scope)))
            .then_with(|| self.compare_tags(a.scope.tags, b.scope.tags))
    }

    fn is_same_row(&self, a: Scope, b: Scope) -> bool {
        a.time == b.time
            && self.device(a) == self.device(b)
            && self.compare_tags(a.tags, b.tags).is_eq()
    }

    fn compare_tags(&self, a: usize, b: usize) -> Ordering {
        if a == b {
            return Ordering::Equal;
        }
        let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
        self.write_tags(a, &mut of_a);
        self.write_tags(b, &mut of_b);
        of_a.cmp(&of_b)
    }

    fn device(&self, scope: Scope) -> Option<&str> {
        scope.device.map(|device| device.of(&self.tree.words))
    }

    /// The tags of a set; where a key stands in several, that of the innermost object counts.
    fn write_tags<'s>(&'s self, set: usize, tags: &mut Vec<(&'s str, &'s str)>) {
        tags.clear();
        let mut at = set;
        while at != 0 {
            let set = self.sets[at];
            let inner = tags.len();
            for (key, value) in &self.tags[set.from..set.to] {
                let key = key.of(&self.tree.words);
                if tags[..inner].iter().all(|(known, _)| *known != key) {
                    tags.push((key, value.of(&self.tree.words)));
                }
            }
            at = set.parent;
        }
    }

    /// The way from the message to a node, cut at [`MAX_PLACE_BYTES`].
    fn write_path(&self, node: u32, element: Option<u32>, path: &mut String) {
        let mut steps = Vec::new();
        let mut at = node;
        while at != 0 {
            steps.push(self.tree.node(at));
            at = self.tree.node(at).parent;
        }
        path.clear();
        path.push('$');
        if let Some(index) = element {
            push_index(path, index);
        }
        for step in steps.iter().rev() {
            if self.tree.node(step.parent).kind == Kind::Array {
                push_index(path, step.index);
            } else {
                push_key(path, step.key.of(&self.tree.words));
            }
            if path.len() > MAX_PLACE_BYTES {
                path.truncate(boundary(path, MAX_PLACE_BYTES - '…'.len_utf8()));
                path.push('…');
                return;
            }
        }
    }
}

/// The end of the last character that ends within `most` bytes.
fn boundary(text: &str, most: usize) -> usize {
    let most = most.min(text.len());
    (0..=most)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

fn push_index(path: &mut String, index: u32) {
    use core::fmt::Write as _;
    // Writing to a String cannot fail.
    let _ = write!(path, "[{index}]");
}

fn push_key(path: &mut String, key: &str) {
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    // Of a name beyond the bound, the part that shows this is enough.
    let shown = &key[..boundary(key, MAX_PLACE_BYTES + '…'.len_utf8())];
    if !shown.is_empty() && shown.chars().all(is_plain) {
        path.push('.');
        path.push_str(shown);
    } else {
        path.push_str("[\"");
        path.extend(shown.chars().flat_map(char::escape_debug));
        path.push_str("\"]");
    }
}

impl Node {
    /// The bytes of its value.
    pub(super) fn written(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.value as usize..self.to as usize]
    }
}
