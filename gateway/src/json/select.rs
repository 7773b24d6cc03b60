//! Extracts selected values from a document in one pass. The rest of the document is not kept.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::document::Document;
use super::value::{Cursor, Kind, Value, index};

/// Marks a null that is not wanted itself but stands on the way to a wanted value.
const NULL: (u32, u32) = (u32::MAX, u32::MAX);

/// Texts up to this number of bytes are kept whole, because copying a part of them saves nothing.
const SHORT: usize = 4 << 10;

/// Places in a document. Each is given by its steps from the top: member names or array indexes.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    /// Nodes of a tree of steps. The first is the root.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default)]
struct Node {
    /// True if the value at this node is wanted, and not only values within it.
    wanted: bool,
    children: Vec<Child>,
}

#[derive(Debug, Clone)]
struct Child {
    name: Box<str>,
    /// Step as an array index, if it can be one.
    index: Option<usize>,
    node: usize,
}

/// Values of a document that were found at [`Paths`].
#[derive(Debug, Clone)]
pub struct Selection {
    paths: Arc<Paths>,
    text: Bytes,
    /// Range of each wanted node's value in `text`. For other nodes, [`NULL`] if the value there is null.
    found: Box<[Option<(u32, u32)>]>,
}

impl Paths {
    pub fn new<'p>(paths: impl IntoIterator<Item = &'p [Box<str>]>) -> Self {
        let mut all = Self::default();
        for path in paths {
            all.add(path);
        }
        all
    }

    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn add(&mut self, path: &[Box<str>]) {
        if self.nodes.is_empty() {
            self.nodes.push(Node::default());
        }
        let mut node = 0;
        for step in path {
            let next = self.nodes.len();
            let children = &mut self.nodes[node].children;
            if let Some(child) = children.iter().find(|child| child.name == *step) {
                node = child.node;
                continue;
            }
            children.push(Child {
                name: step.clone(),
                index: index(step),
                node: next,
            });
            self.nodes.push(Node::default());
            node = next;
        }
        self.nodes[node].wanted = true;
    }

    fn node(&self, steps: &[Box<str>]) -> Option<usize> {
        let top = (!self.is_empty()).then_some(0)?;
        steps.iter().try_fold(top, |node, step| {
            let mut children = self.nodes[node].children.iter();
            children.find(|child| child.name == *step).map(|child| child.node)
        })
    }
}

impl Selection {
    /// Selects the values in one pass over the document.
    pub fn of(document: &Document, paths: &Arc<Paths>) -> Self {
        let mut walk = Walk {
            paths,
            found: vec![None; paths.nodes.len()].into(),
            pieces: Vec::new(),
        };
        if !paths.is_empty() {
            walk.visit(&mut Cursor::new(document.value()), 0, false);
        }
        let Walk { mut found, pieces, .. } = walk;
        let text = document.bytes();
        let wanted: usize = pieces.iter().map(|(start, end)| end - start).sum();
        if text.len() <= SHORT || wanted > text.len() / 2 {
            return Self {
                paths: Arc::clone(paths),
                text: text.clone(),
                found,
            };
        }
        let mut kept = BytesMut::with_capacity(wanted);
        let moved: Vec<_> = pieces
            .iter()
            .map(|(start, end)| {
                let to = kept.len();
                kept.put_slice(&text[*start..*end]);
                (*start, to)
            })
            .collect();
        for (start, end) in found.iter_mut().flatten().filter(|place| **place != NULL) {
            // The value lies in the last piece that starts at or before it.
            let piece = moved.partition_point(|(from, _)| *from <= *start as usize);
            let (from, to) = moved[piece - 1];
            *end = (*end as usize - from + to) as u32;
            *start = (*start as usize - from + to) as u32;
        }
        Self {
            paths: Arc::clone(paths),
            text: kept.freeze(),
            found,
        }
    }

    /// Returns the value at these steps, if they are among the paths and the value exists.
    pub fn get(&self, steps: &[Box<str>]) -> Option<Value<'_>> {
        let (start, end) = self.found[self.paths.node(steps)?]?;
        self.text.get(start as usize..end as usize).map(Value::from_checked)
    }

    /// Returns whether these steps lead to a null or through a null. The document then says that there is no value.
    pub fn leads_to_null(&self, steps: &[Box<str>]) -> bool {
        (0..=steps.len()).any(|count| {
            let place = self.paths.node(&steps[..count]).and_then(|node| self.found[node]);
            place == Some(NULL) || self.get(&steps[..count]).is_some_and(Value::is_null)
        })
    }

    /// Returns whether `value` is a slice of this selection's text.
    pub fn holds(&self, value: Value<'_>) -> bool {
        self.text.as_ptr_range().contains(&value.raw().as_ptr())
    }

    /// Returns a value of this selection as a document that shares the bytes.
    pub fn share(&self, value: Value<'_>) -> Document {
        Document::from_checked(self.text.slice_ref(value.raw()))
    }

    /// Kept bytes.
    pub fn size(&self) -> usize {
        self.text.len()
    }
}

struct Walk<'p> {
    paths: &'p Paths,
    found: Box<[Option<(u32, u32)>]>,
    /// Ranges of wanted values that are not inside another wanted value, in text order.
    pieces: Vec<(usize, usize)>,
}

impl Walk<'_> {
    /// Visits the value at the cursor. The recursion is as deep as the paths.
    fn visit(&mut self, cursor: &mut Cursor<'_>, node: usize, is_kept: bool) {
        let paths = self.paths;
        let Node { wanted, children } = &paths.nodes[node];
        let (start, kind) = (cursor.at(), cursor.kind());
        let within = is_kept || *wanted;
        match kind {
            Kind::Object if !children.is_empty() => {
                cursor.enter();
                while let Some(name) = cursor.name() {
                    let child = children.iter().find(|child| name.is(&child.name));
                    self.visit_child(cursor, child, within);
                }
            }
            Kind::Array if children.iter().any(|child| child.index.is_some()) => {
                cursor.enter();
                let mut indexes = 0..;
                while cursor.element() {
                    let index = indexes.next();
                    let child = children.iter().find(|child| child.index == index);
                    self.visit_child(cursor, child, within);
                }
            }
            _ => drop(cursor.skip()),
        }
        if *wanted {
            self.found[node] = Some((start as u32, cursor.at() as u32));
            if !is_kept {
                self.pieces.push((start, cursor.at()));
            }
        } else if kind == Kind::Null {
            self.found[node] = Some(NULL);
        }
    }

    fn visit_child(&mut self, cursor: &mut Cursor<'_>, child: Option<&Child>, is_kept: bool) {
        match child {
            Some(child) => self.visit(cursor, child.node, is_kept),
            None => drop(cursor.skip()),
        }
    }
}
