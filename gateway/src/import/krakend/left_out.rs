//! Comments on what has no counterpart here.

/// Things without a counterpart, on their way to a comment.
#[derive(Default)]
pub(super) struct LeftOut(pub(super) Vec<String>, pub(super) usize);

impl LeftOut {
    /// Notes something that has no counterpart.
    pub(super) fn add(&mut self, path: &str, why: &str) {
        self.1 += 1;
        let why = if why.is_empty() {
            String::new()
        } else {
            format!(": {why}")
        };
        self.0.push(format!("no counterpart: {path}{why}"));
    }

    /// Notes something that is a little different here.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.0.push(format!("note: {}", text.into()));
    }
}
