//! Reads the doc comments of the model from its source; they are the only descriptions of the keys.

use std::collections::BTreeMap;
use std::path::Path;

/// Doc comments of one source file.
#[derive(Debug, Default)]
pub(super) struct Comments {
    /// Comments by struct or enum.
    items: BTreeMap<String, Item>,
}

#[derive(Debug, Default)]
pub(super) struct Item {
    pub comment: String,
    /// Fields in the order of the source, with their comments. A variant has its name in snake case.
    pub fields: Vec<(String, String)>,
}

impl Comments {
    /// Reads the comments of the file of a type, such as `model::retry::Retry`.
    pub(super) fn of(model: &str) -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config");
        let modules: Vec<_> = model.split("::").collect();
        let file = modules[..modules.len() - 1].join("/");
        let [file, room] = [format!("{file}.rs"), format!("{file}/mod.rs")].map(|file| source.join(file));
        let text = std::fs::read_to_string(&file).or_else(|_| std::fs::read_to_string(&room));
        Self::parse(&text.unwrap_or_else(|error| panic!("{}: {error}", file.display())))
    }

    fn parse(text: &str) -> Self {
        let mut all = Self::default();
        let mut comment = String::new();
        let mut inside: Option<(String, usize)> = None;
        for line in text.lines() {
            let indent = line.len() - line.trim_start().len();
            let line = line.trim();
            if let Some(words) = line.strip_prefix("///") {
                let paragraph = words.is_empty() && !comment.is_empty();
                comment.push_str(if paragraph { "\n" } else { words.trim() });
                comment.push(if paragraph { '\n' } else { ' ' });
                continue;
            }
            if line.starts_with("#[") {
                continue;
            }
            let said = std::mem::take(&mut comment).replace(" \n", "\n").trim().to_owned();
            let words = line.trim_start_matches("pub(super) ").trim_start_matches("pub ");
            match &inside {
                None => {
                    let name = words.strip_prefix("struct ").or_else(|| words.strip_prefix("enum "));
                    if let Some(name) = name.filter(|_| line.ends_with('{') || line.ends_with('}')) {
                        let name: String = name.chars().take_while(|letter| letter.is_alphanumeric()).collect();
                        let item = all.items.entry(name.clone()).or_default();
                        item.comment = said;
                        if line.ends_with('{') {
                            inside = Some((name, indent));
                        }
                    }
                }
                Some((_, outer)) if line == "}" && indent == *outer => inside = None,
                Some((name, outer)) if indent > *outer && words.contains([':', '(', '{', ',']) => {
                    let field: String = words
                        .chars()
                        .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
                        .collect();
                    if let Some(item) = all.items.get_mut(name).filter(|_| !field.is_empty()) {
                        item.fields.push((in_snake_case(&field), said));
                    }
                }
                Some(_) => {}
            }
        }
        all
    }

    pub(super) fn item(&self, name: &str) -> Option<&Item> {
        self.items.get(name)
    }

    /// Returns the comment of a field or variant.
    pub(super) fn field(&self, item: &str, name: &str) -> Option<&str> {
        let mut fields = self.items.get(item)?.fields.iter();
        let (_, comment) = fields.find(|(field, comment)| field == name && !comment.is_empty())?;
        Some(comment)
    }
}

fn in_snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

#[test]
fn comments_are_found_by_item_and_field() {
    let text = "/// A thing.\n///\n/// More of it.\n#[derive(Debug)]\npub struct Thing {\n    /// How many;\n    /// default 3.\n    \
                pub count: At<u32>,\n    pub bare: u8,\n}\n\npub enum Way {\n    /// By foot.\n    OnFoot(u8),\n}\n";
    let comments = Comments::parse(text);
    assert_eq!(
        comments.item("Thing").map(|item| item.comment.as_str()),
        Some("A thing.\n\nMore of it.")
    );
    assert_eq!(comments.field("Thing", "count"), Some("How many; default 3."));
    assert_eq!(comments.field("Thing", "bare"), None);
    assert_eq!(comments.field("Way", "on_foot"), Some("By foot."));
}
