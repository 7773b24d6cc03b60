//! Writes the reference as a page with one table for each section.

use std::fmt::Write;

use super::{Entry, Language, Section};
use crate::config::asked::Shape;

const HEAD: &str = "# Config reference\n\nEvery key of every file that the gateway reads. Made from the reader and its comments by \
`make docs`; do not edit it by hand. `NAME` stands for a name of your choice, `[]` for each item of a list; where a list is \
wanted, one value may stand for a list of one. `${VARIABLE}` and `${VARIABLE:-default}` outside of quotes are replaced from the \
environment. `gateway check FILE` tells every mistake with its line, and `gateway schema` prints the JSON schema for editors.\n";

pub(super) fn page(languages: &[Language]) -> String {
    let mut page = HEAD.to_owned();
    for language in languages {
        let _ = write!(page, "\n## {}\n", language.title);
        for section in &language.sections {
            table(&mut page, section);
        }
    }
    page
}

fn table(page: &mut String, section: &Section) {
    if !section.path.is_empty() {
        let _ = write!(page, "\n### `{}`\n", section.path);
    }
    if !section.comment.is_empty() {
        let _ = write!(page, "\n{}\n", section.comment);
    }
    page.push_str("\n| key | value | default | range | meaning |\n|---|---|---|---|---|\n");
    for key in &section.keys {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} | {} |",
            key.name,
            cell(&kind(key)),
            cell(&default(key)),
            key.range
                .as_ref()
                .map(|(least, most)| format!("{least} to {most}"))
                .unwrap_or_default(),
            cell(&key.meaning.replace("\n\n", " "))
        );
    }
}

fn kind(key: &Entry) -> String {
    let kind = key.shape.map(shape).unwrap_or_default();
    if key.off && !kind.contains("`off`") {
        format!("{kind}, or `off`")
    } else {
        kind
    }
}

fn shape(shape: Shape) -> String {
    match shape {
        Shape::Value(expected) => expected.to_owned(),
        Shape::Section => "section".to_owned(),
        Shape::List(Shape::Section) => "list of sections".to_owned(),
        Shape::List(item) => format!("list of: {}", self::shape(*item)),
        Shape::Either(kinds) => {
            let kinds: Vec<_> = kinds.iter().map(|kind| self::shape(*kind)).collect();
            kinds.join(", or ")
        }
        Shape::Named(Shape::Section) => "sections by name".to_owned(),
        Shape::Named(value) => format!("map from names to: {}", self::shape(*value)),
        Shape::Anything => "any YAML".to_owned(),
    }
}

fn default(key: &Entry) -> String {
    if key.required {
        return "required".to_owned();
    }
    let defaults: Vec<_> = key.defaults.iter().map(|default| format!("`{default}`")).collect();
    defaults.join(" or ")
}

/// Escapes a table cell, because a bar would end it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
